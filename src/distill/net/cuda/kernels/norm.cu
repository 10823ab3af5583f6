// Batch normalisation and activation (Ioffe & Szegedy 2015, Algorithm 1), forward and backward, and
// the gradient of a bias without a norm.
//
// Sums over the pixels of a batch are made in two steps: each block sums a chunk of pixels, and one
// thread a channel sums the blocks' in their order, in double precision.

static const float EPSILON = 1e-3f, MOMENTUM = 0.03f;  // net/norm.rs

struct Norm {
    const real* z;         // the convolution alone; null where the slope follows from y
    real* y;               // the activated value
    real* gradient;        // of y, then of z
    const float* gamma;    // null without a norm
    const float* beta;
    float* running;        // mean, then variance, of each channel; they follow the batch in training
    float* affine;         // [scale, shift, mean, 1 / deviation][channel]
    float* partial;        // [chunk][2][channel]
    float* means;          // of the normalised gradients: [plain, times normalised z][channel]
    float* d_gamma;        // added to
    float* d_beta;
    int pixels, channels;  // of the whole batch
    int chunk;             // pixels of a blockIdx.y
    int chunks;
    int activation;
    int stay;              // whether the running statistics do not follow
};

// Σ z and Σ z² of a chunk.
ENTRY(norm_sums, Norm) {
    __shared__ float shared[ROWS][CHANNELS];
    start();
    const int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    const int from = blockIdx.y * a.chunk, to = min(from + a.chunk, a.pixels);
    float sum = 0.0f, squares = 0.0f;
    if (channel < a.channels)
        for (int p = from + threadIdx.x / CHANNELS; p < to; p += ROWS) {
            const float v = value(a.z + (long long)p * a.channels + channel);
            sum += v, squares += v * v;
        }
    sum = over_rows(sum, shared), squares = over_rows(squares, shared);
    if (threadIdx.x < CHANNELS && channel < a.channels) {
        float* partial = a.partial + (long long)blockIdx.y * 2 * a.channels + channel;
        partial[0] = sum, partial[a.channels] = squares;
    }
}

__device__ __forceinline__ void set_affine(const Norm& a, int channel, float mean, float variance) {
    const float inverse = 1.0f / sqrtf(variance + EPSILON), scale = a.gamma[channel] * inverse;
    a.affine[channel] = scale;
    a.affine[a.channels + channel] = a.beta[channel] - mean * scale;
    a.affine[2 * a.channels + channel] = mean;
    a.affine[3 * a.channels + channel] = inverse;
}

// The two sums of a channel over all chunks.
__device__ __forceinline__ void total(const Norm& a, int channel, double (&sums)[2]) {
    sums[0] = sums[1] = 0.0;
    for (int i = 0; i < a.chunks; i++) {
        const float* partial = a.partial + (long long)i * 2 * a.channels + channel;
        sums[0] += partial[0], sums[1] += partial[a.channels];
    }
}

// Statistics of the batch, which the running ones follow.
ENTRY(norm_statistics, Norm) {
    start();
    const int channel = (int)flat_thread();
    if (channel >= a.channels) return;
    double sums[2];
    total(a, channel, sums);
    const double mean = sums[0] / a.pixels, variance = sums[1] / a.pixels - mean * mean;
    const float m = (float)mean, v = variance > 0.0 ? (float)variance : variance <= 0.0 ? 0.0f : (float)variance;
    set_affine(a, channel, m, v);
    if (a.stay) return;
    float* running = a.running + channel;
    running[0] += MOMENTUM * (m - running[0]);
    running[a.channels] += MOMENTUM * (v - running[a.channels]);
}

// The running statistics in place of the batch's.
ENTRY(norm_running, Norm) {
    start();
    const int channel = (int)flat_thread();
    if (channel < a.channels) set_affine(a, channel, a.running[channel], a.running[a.channels + channel]);
}

ENTRY(norm_apply, Norm) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.pixels * a.channels) return;
    const int channel = i % a.channels;
    store(a.y + i, activate(a.activation, value(a.z + i) * a.affine[channel] + a.affine[a.channels + channel]));
}

// The gradient of what is activated.
__device__ __forceinline__ float before_activation(const Norm& a, long long i, int channel) {
    const float gradient = value(a.gradient + i);
    if (a.activation == 0) return gradient;
    if (!a.z) return sloped(gradient, slope_at_result(a.activation, value(a.y + i)));
    const float z = value(a.z + i);
    const float x = a.gamma ? z * a.affine[channel] + a.affine[a.channels + channel] : z + a.beta[channel];
    return sloped(gradient, slope(a.activation, x));
}

// Σ g and Σ g·ẑ of a chunk, with ẑ the normalised z.
ENTRY(norm_gradient_sums, Norm) {
    __shared__ float shared[ROWS][CHANNELS];
    start();
    const int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    const int from = blockIdx.y * a.chunk, to = min(from + a.chunk, a.pixels);
    float sum = 0.0f, weighted = 0.0f;
    if (channel < a.channels) {
        const float mean = a.gamma ? a.affine[2 * a.channels + channel] : 0.0f;
        const float inverse = a.gamma ? a.affine[3 * a.channels + channel] : 0.0f;
        for (int p = from + threadIdx.x / CHANNELS; p < to; p += ROWS) {
            const long long i = (long long)p * a.channels + channel;
            const float g = before_activation(a, i, channel);
            sum += g;
            if (a.gamma) weighted += g * ((value(a.z + i) - mean) * inverse);
        }
    }
    sum = over_rows(sum, shared), weighted = over_rows(weighted, shared);
    if (threadIdx.x < CHANNELS && channel < a.channels) {
        float* partial = a.partial + (long long)blockIdx.y * 2 * a.channels + channel;
        partial[0] = sum, partial[a.channels] = weighted;
    }
}

// The gradients of γ and β (or the bias), and the means that the normalisation takes out.
ENTRY(norm_parameters, Norm) {
    start();
    const int channel = (int)flat_thread();
    if (channel >= a.channels) return;
    double sums[2];
    total(a, channel, sums);
    a.d_beta[channel] += (float)sums[0];
    if (!a.gamma) return;
    a.d_gamma[channel] += (float)sums[1];
    a.means[channel] = (float)(sums[0] / a.pixels), a.means[a.channels + channel] = (float)(sums[1] / a.pixels);
}

// dz = γ/σ · (g − mean(g) − ẑ·mean(g·ẑ)); without a norm dz = g.
ENTRY(norm_gradient, Norm) {
    start();
    const int i = flat_thread();
    if (i >= (long long)a.pixels * a.channels) return;
    const int channel = i % a.channels;
    float g = before_activation(a, i, channel);
    if (a.gamma) {
        const float normalised = (value(a.z + i) - a.affine[2 * a.channels + channel]) * a.affine[3 * a.channels + channel];
        g = a.affine[channel] * (g - a.means[channel] - normalised * a.means[a.channels + channel]);
    }
    store(a.gradient + i, g);
}
