// What a board computes, to be compared with the desktop: any blobs of a network as raw
// float32, in C order, for an input that was prepared elsewhere.
//
//     dump_blobs PARAM BIN INPUT.f32 WIDTH HEIGHT CHANNELS ARITHMETIC FOLDER BLOB...
//
// FOLDER/0.f32, FOLDER/1.f32, ... are written in the order of the blobs; a line is printed for each:
// its name and its sizes.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>

#include "network.hpp"

namespace {

ncnn::Mat read_input(std::string const& path, int width, int height, int channels) {
    if (width < 1 || height < 1 || channels < 1) {
        throw std::runtime_error("width, height and channels must be whole numbers above 0");
    }
    ncnn::Mat mat(width, height, channels);
    std::ifstream file(path, std::ios::binary);
    auto const plane = static_cast<std::streamsize>(sizeof(float)) * width * height;
    for (int channel = 0; channel < channels; ++channel) {
        file.read(reinterpret_cast<char*>(static_cast<float*>(mat.channel(channel))), plane);
    }
    if (!file || file.peek() != std::ifstream::traits_type::eof()) {
        throw std::runtime_error(path + " has another number of floats");
    }
    return mat;
}

// Channels of a mat of three dimensions may have gaps between them.
void write_blob(std::string const& path, ncnn::Mat const& mat) {
    std::ofstream file(path, std::ios::binary);
    auto const plane = static_cast<std::streamsize>(sizeof(float)) * mat.w * mat.h * mat.d;
    for (int channel = 0; channel < mat.c; ++channel) {
        file.write(static_cast<char const*>(mat.channel(channel).data), plane);
    }
    file.close();
    if (!file) {
        throw std::runtime_error(path + " cannot be written");
    }
}

void print_sizes(std::string const& blob, ncnn::Mat const& mat) {
    std::printf("%s", blob.c_str());
    if (mat.dims >= 3) {
        std::printf(" %d", mat.c);
    }
    if (mat.dims >= 2) {
        std::printf(" %d", mat.h);
    }
    std::printf(" %d\n", mat.w);
}

void dump(int argc, char const* const* argv) {
    ncnn::Net net;
    set_arithmetic(net.opt, argv[7]);
    load_net(net, argv[1], argv[2]);
    ncnn::Extractor extractor = net.create_extractor();
    auto const number = [&](int at) {
        return static_cast<int>(std::strtol(argv[at], nullptr, 10));
    };
    ncnn::Mat const input = read_input(argv[3], number(4), number(5), number(6));
    check_input(input_size_of(argv[1]), static_cast<std::uint32_t>(input.w),
                static_cast<std::uint32_t>(input.h));
    if (net.input_names().empty()) {
        throw std::runtime_error("the network has no input");
    }
    feed(extractor, net.input_names().front(), input);
    for (int index = 9; index < argc; ++index) {
        std::string const blob = argv[index];
        ncnn::Mat const mat = extract(extractor, blob);
        if (mat.dims > 3) {
            throw std::runtime_error(blob + " has more than three dimensions");
        }
        write_blob(std::string(argv[8]) + "/" + std::to_string(index - 9) + ".f32", mat);
        print_sizes(blob, mat);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 10) {
        std::cerr << "usage: dump_blobs PARAM BIN INPUT.f32 WIDTH HEIGHT CHANNELS ARITHMETIC "
                     "FOLDER BLOB...\n";
        return 2;
    }
    try {
        dump(argc, argv);
    } catch (std::exception const& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
