# What all programs need that run a network: a kind of build, ncnn, and the library.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()

if(NOT ncnn_DIR)
  find_package(ncnn QUIET)
  if(NOT ncnn_FOUND)
    message(FATAL_ERROR "ncnn is not here. cpp_postprocess/ncnn/build_ncnn.py builds it and prints "
      "the folder to give as -Dncnn_DIR=FOLDER.")
  endif()
endif()
find_package(ncnn REQUIRED)

if(NOT TARGET mbv3ssd::postprocess)
  add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/.. mbv3ssd)
endif()
