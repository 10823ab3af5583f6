// Depthwise convolutions: forward, the gradient of the input, and the gradient of the weights.
//
// Weights are [kernel row][kernel column][channel]. A thread makes one value, neighbouring threads
// those of neighbouring channels.

struct DepthwiseForward : Windowed {
    const real* input;
    const float* weights;
    const float* bias;  // null where a norm follows: then `output` is the convolution alone
    real* output;
    real* alone;  // ahead of bias and activation; null where nobody reads it
    int activation;
};

ENTRY(depthwise_forward, DepthwiseForward) {
    start();
    const int channels = a.out_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.out_height * a.out_width * channels) return;
    const int channel = i % channels;
    float sum = 0.0f;
    over_inputs(a, Pixel(i / channels, a.out_height, a.out_width), [&](int tap, int at) {
        sum += a.weights[tap * channels + channel] * value(a.input + at * channels + channel);
    });
    if (a.alone) store(a.alone + i, sum);
    if (a.bias) sum = activate(a.activation, sum + a.bias[channel]);
    store(a.output + i, sum);
}

struct DepthwiseInput : Windowed {
    const real* gradient;
    const float* weights;
    real* result;
};

ENTRY(depthwise_input, DepthwiseInput) {
    start();
    const int channels = a.in_channels;
    const int i = flat_thread();
    if (i >= (long long)a.images * a.in_height * a.in_width * channels) return;
    const int channel = i % channels;
    float sum = 0.0f;
    over_outputs(a, Pixel(i / channels, a.in_height, a.in_width), [&](int tap, int at) {
        sum += a.weights[tap * channels + channel] * value(a.gradient + at * channels + channel);
    });
    put(a.result + i, sum, a.keep);
}

struct DepthwiseWeights : Windowed {
    const real* input;
    const real* gradient;
    float* partial;  // [blockIdx.y][kernel row][kernel column][channel]
    int chunk;       // output pixels of a blockIdx.y
};

// A block has one tap of 32 channels.
ENTRY(depthwise_weights, DepthwiseWeights) {
    __shared__ float shared[ROWS][CHANNELS];
    start();
    const int channels = a.out_channels, pixels = a.images * a.out_height * a.out_width;
    const int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    const int ky = blockIdx.z / a.kernel, kx = blockIdx.z % a.kernel;
    const int from = blockIdx.y * a.chunk, to = min(from + a.chunk, pixels);
    float sum = 0.0f;
    if (channel < channels)
        for (int at = from + threadIdx.x / CHANNELS; at < to; at += ROWS) {
            const Pixel p(at, a.out_height, a.out_width);
            const int y = p.y * a.stride - a.pad_top + ky, x = p.x * a.stride - a.pad_left + kx;
            if ((unsigned)y >= (unsigned)a.in_height || (unsigned)x >= (unsigned)a.in_width) continue;
            const long long in = ((long long)p.image * a.in_height + y) * a.in_width + x;
            sum += value(a.gradient + (long long)at * channels + channel) * value(a.input + in * channels + channel);
        }
    sum = over_rows(sum, shared);
    if (threadIdx.x < CHANNELS && channel < channels)
        a.partial[((long long)blockIdx.y * a.kernel * a.kernel + blockIdx.z) * channels + channel] = sum;
}
