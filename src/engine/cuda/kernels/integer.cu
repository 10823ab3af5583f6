// Quantized steps other than dense convolutions (see convolution.cu): depthwise and first
// convolutions, sums, and what brings values to bytes and back. Bytes lie channels last, padded to
// 16.

// ---- depthwise: a thread filters 8 channels of COLUMNS neighbouring output pixels ----

struct IntegerDepthwise : Window {
    const u8* input;
    const s8* weights;  // [kernel row][kernel column][channels, padded to 16]
    const Channel* channels;
    Residual residual;
    void* output;
    Requantization quantized;
    int written;  // channels: a multiple of 8
    int weight_pitch;
};

__device__ __forceinline__ void signed8(uint2 v, int (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[i] = (s8)(v.x >> 8 * i);
        out[4 + i] = (s8)(v.y >> 8 * i);
    }
}

__device__ __forceinline__ void finish(const IntegerDepthwise& d, int y, int x, int channel, const int (&sums)[8]) {
    const int pixel = y * d.out_width + x;
    const u8* residual = d.residual.values ? residual_at<u8>(d.residual, pixel, d.out_width) + channel : nullptr;
    const long long at = (long long)pixel * d.out_pitch + channel;
    finish_integer<8>(d.quantized, d.channels + channel, sums, residual, d.output, at);
}

// KERNEL and STRIDE are 0 where they are only known at run time. Around the map lies the zero
// point, so that one correction a channel serves at the edges too.
template <int KERNEL, int STRIDE, int COLUMNS>
__device__ __forceinline__ void filter(const IntegerDepthwise& d) {
    let_next_start();
    const int kernel = KERNEL ? KERNEL : d.kernel, stride = STRIDE ? STRIDE : d.stride;
    const Filtered<8, COLUMNS> place(d.written, d.out_width, d.out_height);
    const int channel = place.channel, y = place.y, first = place.first;
    wait_for_inputs();
    if (place.outside) return;
    const int top = y * stride - d.pad_top, left = first * stride - d.pad_left;
    const unsigned fill = d.quantized.fill;
    int sums[COLUMNS][8] = {};

#ifdef PEREGRINE_SCALAR
    for (int o = 0; o < COLUMNS && first + o < d.out_width; o++)
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++) {
                const int sy = top + ky, sx = left + o * stride + kx;
                const bool inside = sy >= 0 && sx >= 0 && sy < d.in_height && sx < d.in_width;
                const u8* in = d.input + ((long long)sy * d.in_width + sx) * d.in_pitch + channel;
                const s8* w = d.weights + (long long)(ky * kernel + kx) * d.weight_pitch + channel;
                for (int c = 0; c < 8; c++) sums[o][c] += (inside ? in[c] : (u8)fill) * w[c];
            }
#else
#pragma unroll 1
    for (int ky = 0; ky < kernel; ky++) {
        const int sy = top + ky;
        const bool row_inside = sy >= 0 && sy < d.in_height;
        const u8* row = d.input + (long long)sy * d.in_width * d.in_pitch + channel;
        const s8* weights = d.weights + (long long)ky * kernel * d.weight_pitch + channel;
        const int columns = (COLUMNS - 1) * stride + kernel;
#pragma unroll
        for (int i = 0; i < columns; i++) {
            const int sx = left + i;
            const bool inside = row_inside && sx >= 0 && sx < d.in_width;
            int v[8];
            bytes8(inside ? *(const uint2*)(row + (long long)sx * d.in_pitch) : make_uint2(fill, fill), v);
#pragma unroll
            for (int o = 0; o < COLUMNS; o++) {
                const int kx = i - o * stride;
                if (kx < 0 || kx >= kernel) continue;
                int w[8];
                signed8(__ldg((const uint2*)(weights + (long long)kx * d.weight_pitch)), w);
#pragma unroll
                for (int c = 0; c < 8; c++) sums[o][c] += v[c] * w[c];
            }
        }
    }
#endif
#pragma unroll
    for (int o = 0; o < COLUMNS; o++)
        if (first + o < d.out_width) finish(d, y, first + o, channel, sums[o]);
}

#define INTEGER_DEPTHWISE(NAME, KERNEL, STRIDE, COLUMNS)                                     \
    extern "C" __global__ void __launch_bounds__(128) NAME(const IntegerDepthwise d) {       \
        filter<KERNEL, STRIDE, COLUMNS>(d);                                                  \
    }

// ---- the first convolution: the four bytes of a pixel meet those of a weight in one instruction ----

struct IntegerStem : Window {
    const unsigned* input;    // a pixel
    const unsigned* weights;  // [kernel row][kernel column][channels]: four bytes with sign
    const Channel* constants;
    void* output;
    Requantization quantized;
    int channels;  // a multiple of CHANNELS, in the weights and the constants
    int written;   // output channels that exist: a multiple of 8
};

// A thread makes CHANNELS output channels of one pixel; the weights wait in shared memory.
template <int CHANNELS>
__device__ __forceinline__ void stem(const IntegerStem& s) {
    let_next_start();
    const int most_taps = 49;
    __shared__ unsigned weights[most_taps * CHANNELS];
    const int first = (int)blockIdx.y * CHANNELS;
    const int values = s.kernel * s.kernel * CHANNELS;
    for (int i = threadIdx.x; i < values; i += blockDim.x)
        weights[i] = s.weights[(long long)(i / CHANNELS) * s.channels + first + i % CHANNELS];
    wait_for_inputs();
    __syncthreads();

    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= s.pixels) return;
    const int pixel = (int)thread, y = pixel / s.out_width, x = pixel - y * s.out_width;
    int sums[CHANNELS] = {};
    for (int ky = 0; ky < s.kernel; ky++) {
        const int sy = y * s.stride - s.pad_top + ky;
        for (int kx = 0; kx < s.kernel; kx++) {
            const int sx = x * s.stride - s.pad_left + kx;
            const bool inside = sy >= 0 && sx >= 0 && sy < s.in_height && sx < s.in_width;
            const unsigned in = inside ? s.input[(long long)sy * s.in_width + sx] : s.quantized.fill;
            const unsigned* w = weights + (ky * s.kernel + kx) * CHANNELS;
#ifdef PEREGRINE_SCALAR
            for (int c = 0; c < CHANNELS; c++)
                for (int i = 0; i < 4; i++) sums[c] += (u8)(in >> 8 * i) * (s8)(w[c] >> 8 * i);
#else
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) sums[c] = dot4(in, w[c], sums[c]);
#endif
        }
    }
#pragma unroll
    for (int c = 0; c < CHANNELS; c += 8) {
        if (first + c >= s.written) return;
        int eight[8];
#pragma unroll
        for (int i = 0; i < 8; i++) eight[i] = sums[c + i];
        const long long at = (long long)pixel * s.out_pitch + first + c;
        finish_integer<8>(s.quantized, s.constants + first + c, eight, nullptr, s.output, at);
    }
}

#define INTEGER_STEM(NAME, CHANNELS) \
    extern "C" __global__ void __launch_bounds__(128) NAME(const IntegerStem s) { stem<CHANNELS>(s); }

// ---- movement ----

// The sum of two operands, each perhaps read through an upsampling by two; a lone operand is
// copied. A thread makes 8 channels.
struct IntegerSum {
    Residual a, b;
    u8* output;
    int width, pixels, pitch;
    int channels;  // a multiple of 8
    int a_zero, b_zero;
    float a_factor, b_factor;
    int zero;
    int unused;
};

extern "C" __global__ void __launch_bounds__(128) sum_i8(const IntegerSum s) {
    let_next_start();
    wait_for_inputs();
    const Moved to(s.pixels, s.channels / 8);
    if (to.outside) return;
    const int pixel = to.pixel, channel = to.channel * 8;
    const uint2 a = *(const uint2*)(residual_at<u8>(s.a, pixel, s.width) + channel);
    u8* out = s.output + (long long)pixel * s.pitch + channel;
    if (!s.b.values) {
        *(uint2*)out = a;
        return;
    }
    int left[8], right[8];
    bytes8(a, left);
    bytes8(*(const uint2*)(residual_at<u8>(s.b, pixel, s.width) + channel), right);
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float both = __fadd_rn(relative(left[i], s.a_zero, s.a_factor), relative(right[i], s.b_zero, s.b_factor));
        v[i] = __fadd_rn(both, (float)s.zero);
    }
    store_bytes<8>(out, v);
}

extern "C" __global__ void __launch_bounds__(128) copy_part_i8(const Part p) { copy<u8>(p); }

extern "C" __global__ void __launch_bounds__(128) gather_i8(const Gather g) { gather_channels<u8>(g); }

// A tensor in its other form. A thread converts one value; those past the last channel are real
// zeros.
struct Convert {
    const void* input;
    void* output;
    int pixels, in_pitch, out_pitch;
    int channels;
    int written;
    float scale;
    int zero;
    int unused;
};

extern "C" __global__ void __launch_bounds__(128) to_bytes(const Convert c) {
    let_next_start();
    wait_for_inputs();
    const Moved to(c.pixels, c.written);
    if (to.outside) return;
    const f16* in = (const f16*)c.input + (long long)to.pixel * c.in_pitch + to.channel;
    const float real = to.channel < c.channels ? to_float(*in) : 0.0f;
    ((u8*)c.output)[(long long)to.pixel * c.out_pitch + to.channel] = (u8)quantize(real, c.scale, c.zero);
}

extern "C" __global__ void __launch_bounds__(128) to_halves(const Convert c) {
    let_next_start();
    wait_for_inputs();
    const Moved to(c.pixels, c.written);
    if (to.outside) return;
    const u8* in = (const u8*)c.input + (long long)to.pixel * c.in_pitch + to.channel;
    const float real = to.channel < c.channels ? relative(*in, c.zero, c.scale) : 0.0f;
    ((f16*)c.output)[(long long)to.pixel * c.out_pitch + to.channel] = to_finite_half(real);
}

// Planar single precision [channels][pixels] to bytes; a thread writes one.
struct PackBytes {
    const float* planar;
    u8* packed;
    int channels, pixels, pitch;
    float scale;
    int zero;
    int unused;
};

extern "C" __global__ void __launch_bounds__(128) pack_bytes(const PackBytes p) {
    let_next_start();
    wait_for_inputs();
    const Moved to(p.pixels, p.pitch);
    if (to.outside) return;
    const float real = to.channel < p.channels ? p.planar[(long long)to.channel * p.pixels + to.pixel] : 0.0f;
    p.packed[to.thread] = (u8)quantize(real, p.scale, p.zero);
}
