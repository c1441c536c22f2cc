# What every program needs that runs a network: a kind of build, ncnn where it is, and the library.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()

string(CONCAT without_ncnn "there is no ncnn here. cpp_postprocess/ncnn/build_ncnn.py builds it "
  "and prints the folder to give as -Dncnn_DIR=FOLDER")
if(ncnn_DIR)
  find_package(ncnn REQUIRED)
else()
  find_package(ncnn QUIET)
endif()

if(NOT TARGET mbv3ssd::postprocess)
  add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/.. mbv3ssd)
endif()
