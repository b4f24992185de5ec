// Keypoints of a grey image by a model of `spslam export WEIGHTS --to onnx --end-to-end`.
//
//   keypoints MODEL.onnx IMAGE.pgm
//
// It prints a line for each keypoint, best first: x, y (pixels, (0, 0) is the centre of the first
// one), score, and the descriptor. The image is a binary PGM file (P5) of 8 bits.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

namespace {

// Largest number of pixels of an image; keeps a damaged header from asking for all memory.
constexpr std::size_t kMostPixels = std::size_t{1} << 28;

struct Image {
    std::size_t width = 0;
    std::size_t height = 0;
    std::vector<std::uint8_t> pixels;  // row by row
};

// Reads a number of a PGM header; comments start with # and end with the line.
std::size_t read_number(std::istream& file) {
    while (file >> std::ws && file.peek() == '#') {
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    std::size_t number = 0;
    if (!(file >> number)) throw std::runtime_error("the PGM header is damaged");
    return number;
}

Image read_pgm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open " + path);
    std::string kind(2, ' ');
    file.read(kind.data(), 2);
    if (kind != "P5") throw std::runtime_error("expected a binary PGM file (P5): " + path);
    Image image;
    image.width = read_number(file);
    image.height = read_number(file);
    if (read_number(file) != 255) throw std::runtime_error("expected 8 bits a pixel: " + path);
    if (image.width == 0 || image.height == 0 || image.width > kMostPixels / image.height) {
        throw std::runtime_error("the size of the image is impossible: " + path);
    }
    file.get();  // one white space between the header and the pixels
    image.pixels.resize(image.width * image.height);
    const auto size = static_cast<std::streamsize>(image.pixels.size());
    file.read(reinterpret_cast<char*>(image.pixels.data()), size);
    if (file.gcount() != size) throw std::runtime_error("the image is cut off: " + path);
    return image;
}

void print_keypoints(const std::string& model_path, Image& image) {
    ov::Core core;
    // Without this hint, processors with bf16 compute in bf16, and keypoints move.
    auto model = core.compile_model(model_path, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = model.create_infer_request();
    // The tensor does not copy the pixels: they must live until infer() returns.
    request.set_input_tensor(
        ov::Tensor(ov::element::u8, {image.height, image.width}, image.pixels.data()));
    request.infer();
    const ov::Tensor keypoints = request.get_tensor("keypoints");      // N × 2
    const ov::Tensor scores = request.get_tensor("scores");            // N
    const ov::Tensor descriptors = request.get_tensor("descriptors");  // N × D
    const std::size_t count = descriptors.get_shape()[0];
    const std::size_t length = descriptors.get_shape()[1];
    const float* xy = keypoints.data<const float>();
    const float* score = scores.data<const float>();
    const float* values = descriptors.data<const float>();
    std::cout << std::setprecision(std::numeric_limits<float>::max_digits10);
    for (std::size_t i = 0; i < count; ++i) {
        std::cout << xy[2 * i] << ' ' << xy[2 * i + 1] << ' ' << score[i];
        for (std::size_t d = 0; d < length; ++d) std::cout << ' ' << values[i * length + d];
        std::cout << '\n';
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: keypoints MODEL.onnx IMAGE.pgm\n";
        return 2;
    }
    try {
        Image image = read_pgm(argv[2]);
        print_keypoints(argv[1], image);
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
