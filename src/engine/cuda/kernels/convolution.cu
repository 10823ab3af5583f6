// Dense convolution as a matrix product on tensor cores, its patches gathered by index (implicit
// GEMM).
//
//   rows    output pixels, row-major             columns  output channels depth   kernel taps, and
//   within each the input channels in chunks of 64 bytes (32 halves or 64 bytes)
//
// There is no shared memory and no barrier in the loop over the depth. The operands of STAGES steps
// are under way at a time, the first weights before the input is there. A lane loads 16 contiguous
// bytes of a pixel's channels, four lanes a whole chunk; it takes them for the places that a
// tensor-core fragment gives it, which permutes the depth within a chunk. The weights are packed on
// the host (pack.rs) with the same permutation, in the order in which lanes read them, and with a
// second one of the columns, after which a lane's results are contiguous channels. The kernels are
// thus made for maps of a few thousand pixels, where latency decides and not bandwidth.
//
// A block's warps: WM along the rows, WN along the columns, WK along the depth, whose sums meet in
// shared memory. A warp's tile: MI·16 rows, NI·8 columns.
//
// PEREGRINE_SCALAR replaces the product by plain loops over the same packed weights.

// Quantized convolutions multiply bytes without sign by weights with sign, exactly; see
// Requantization in common.cuh.

struct Convolution : Window {
    const void* input;  // f16 or u8, from the first channel that is read
    const uint4* weights;
    const void* constants;  // by output channel: its bias (float), or its Channel
    Residual residual;
    void* output;
    unsigned* saturated;       // see count_saturated; f16 only
    Requantization quantized;  // u8 only
    int channels_in;   // read: a multiple of what 16 bytes hold
    int channels_out;  // written: a multiple of what 16 bytes hold
    int chunks;        // of 64 bytes over channels_in
};

template <typename T> struct Element;
template <> struct Element<f16> {
    typedef float Sum;
    static __device__ __forceinline__ void mma(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                               unsigned b0, unsigned b1) {
        mma_f16(d, a0, a1, a2, a3, b0, b1);
    }
};
template <> struct Element<u8> {
    typedef int Sum;
    static __device__ __forceinline__ void mma(int (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                               unsigned b1) {
        mma_u8s8(d, a0, a1, a2, a3, b0, b1);
    }
};

#ifdef PEREGRINE_SCALAR
// The `i`-th of the values that 16 bytes hold.
__device__ __forceinline__ float value_of(const uint4& v, int i, f16) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    return i % 2 ? high(words[i / 2]) : low(words[i / 2]);
}
__device__ __forceinline__ int value_of(const uint4& v, int i, u8) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    return (u8)(words[i / 4] >> 8 * (i % 4));
}
__device__ __forceinline__ float weight_of(const uint4& v, int i, f16 element) { return value_of(v, i, element); }
__device__ __forceinline__ int weight_of(const uint4& v, int i, u8 element) { return (s8)value_of(v, i, element); }
#endif

// Where the patch of an output pixel begins.
struct Patch {
    int y, x;
};

__device__ __forceinline__ Patch patch_of(const Convolution& c, int pixel) {
    const int y = pixel / c.out_width, x = pixel - y * c.out_width;
    Patch p = {y * c.stride - c.pad_top, x * c.stride - c.pad_left};
    return p;
}

// 16 bytes of channels of the input below a kernel tap; what is zero outside the map. Past the last
// channel the weights are zero.
template <typename T>
__device__ __forceinline__ uint4 gather(const Convolution& c, Patch patch, int ky, int kx, int channel) {
    const int y = patch.y + ky, x = patch.x + kx;
    const bool inside = (unsigned)y < (unsigned)c.in_height && (unsigned)x < (unsigned)c.in_width;
    if (!inside || channel >= c.channels_in) {
        const unsigned fill = sizeof(T) == 1 ? c.quantized.fill : 0;
        return make_uint4(fill, fill, fill, fill);
    }
    const T* at = (const T*)c.input + ((long long)y * c.in_width + x) * c.in_pitch + channel;
    return *(const uint4*)at;
}

// What the sums of N contiguous channels are finished with, loaded before the product begins.
template <typename T, int N> struct Biases;
template <int N> struct Biases<f16, N> {
    float values[N];
    __device__ __forceinline__ void load(const Convolution& c, int channel) {
#pragma unroll
        for (int i = 0; i < N; i++) values[i] = load_constant((const float*)c.constants + channel + i);
    }
};
// Bytes have four constants a channel: too many to wait in registers.
template <int N> struct Biases<u8, N> {
    __device__ __forceinline__ void load(const Convolution&, int) {}
};

// What is added to N contiguous channels of a pixel, likewise; zeros where nothing is.
template <typename T, int N> struct Addends;
template <int N> struct Addends<f16, N> {
    unsigned values[N / 2];
    __device__ __forceinline__ void load(const Convolution& c, int pixel, int channel) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) values[i] = 0;
        if (c.residual.values && pixel < c.pixels && channel < c.channels_out)
            load_halves<N>(residual_at<f16>(c.residual, pixel, c.out_width) + channel, values);
    }
};
template <int N> struct Addends<u8, N> {
    __device__ __forceinline__ void load(const Convolution&, int, int) {}
};

// What follows the sums of N contiguous channels of a pixel; then they are written.
template <int N>
__device__ __forceinline__ void finish(const Convolution& c, int pixel, int channel, const float (&sums)[N],
                                       const Biases<f16, N>& biases, const Addends<f16, N>& addends) {
    if (pixel >= c.pixels || channel >= c.channels_out) return;
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = activate(c.activation, sums[i] + biases.values[i]);
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        v[2 * i] += low(addends.values[i]);
        v[2 * i + 1] += high(addends.values[i]);
    }
    count_saturated<N>(c.saturated, v);
    store_halves<N>((f16*)c.output + (long long)pixel * c.out_pitch + channel, v);
}

template <int N>
__device__ __forceinline__ void finish(const Convolution& c, int pixel, int channel, const int (&sums)[N],
                                       const Biases<u8, N>&, const Addends<u8, N>&) {
    if (pixel >= c.pixels || channel >= c.channels_out) return;
    const u8* residual = nullptr;
    if (c.residual.values) residual = residual_at<u8>(c.residual, pixel, c.out_width) + channel;
    const Channel* channels = (const Channel*)c.constants + channel;
    finish_integer<N>(c.quantized, channels, sums, residual, c.output, (long long)pixel * c.out_pitch + channel);
}

// POINT: kernel and stride are 1, so that pixels correspond one to one.
template <typename T, int MI, int NI, int WM, int WN, int WK, bool POINT>
__device__ __forceinline__ void convolve(const Convolution& c) {
    typedef typename Element<T>::Sum Sum;
    let_next_start();
    const int per_lane = 16 / sizeof(T);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int wk = warp % WK, wn = warp / WK % WN, wm = warp / (WK * WN);
    const int group = lane >> 2, quad = lane & 3;
    const int first_pixel = ((int)blockIdx.x * WM + wm) * 16 * MI;
    const int tile = (int)blockIdx.y * WN + wn;
    const int steps = POINT ? c.chunks : c.kernel * c.kernel * c.chunks;
    const int channel_out = tile * 8 * NI + quad * 2 * NI;
    // A lane's channels are written in pieces that channels_out never divides.
    const int PIECE = 8 % (2 * NI) ? 4 : 2 * NI, PIECES = 2 * NI / PIECE;

    Sum sums[MI][NI][4] = {};
    // Only the first warp along the depth finishes the sums.
    Biases<T, PIECE> biases[PIECES] = {};
    Addends<T, PIECE> addends[2 * MI][PIECES] = {};
    if (wk == 0) {
#pragma unroll
        for (int p = 0; p < PIECES; p++) biases[p].load(c, channel_out + p * PIECE);
    }
    auto load_addends = [&]() {
        if (wk > 0) return;
#pragma unroll
        for (int r = 0; r < 2 * MI; r++)
#pragma unroll
            for (int p = 0; p < PIECES; p++)
                addends[r][p].load(c, first_pixel + r * 8 + group, channel_out + p * PIECE);
    };

#ifdef PEREGRINE_SCALAR
    wait_for_inputs();
    load_addends();
    // Each lane computes what the fragments would give it, one product after the other.
    for (int step = wk; step < steps; step += WK) {
        const int tap = step / c.chunks, chunk = step % c.chunks;
        for (int mi = 0; mi < MI; mi++)
            for (int half = 0; half < 2; half++) {
                const int pixel = min(first_pixel + mi * 16 + half * 8 + group, c.pixels - 1);
                for (int k = 0; k < 4 * per_lane; k++) {
                    const int channel = chunk * 4 * per_lane + k;
                    const uint4 a = gather<T>(c, patch_of(c, pixel), tap / c.kernel, tap % c.kernel,
                                              channel / per_lane * per_lane);
                    const Sum x = value_of(a, k % per_lane, T());
                    for (int j = 0; j < NI; j++)
                        for (int e = 0; e < 2; e++) {
                            // The lane that would hold this weight as part of a fragment.
                            const int holder = (2 * quad + e) * 4 + k / per_lane;
                            const long long at = (((long long)tile * steps + step) * NI + j) * 32 + holder;
                            const Sum w = weight_of(c.weights[at], k % per_lane, T());
                            sums[mi][j][2 * half + e] += x * w;
                        }
                }
            }
    }
#else
    Patch patches[2 * MI];
    long long rows[2 * MI];  // elements from the input's first
#pragma unroll
    for (int r = 0; r < 2 * MI; r++) {
        // Rows past the last pixel repeat it, and are not written.
        const int pixel = min(first_pixel + r * 8 + group, c.pixels - 1);
        patches[r] = patch_of(c, pixel);
        rows[r] = (long long)pixel * c.in_pitch + quad * per_lane;
        if (POINT) know(rows[r]);
    }
    const uint4* weights = c.weights + ((long long)tile * steps * NI) * 32 + lane;

    // As many as registers have room for.
    const int STAGES = MI + NI <= 3 ? 4 : 2;
    uint4 a[STAGES][2 * MI], b[STAGES][NI];
    auto load_weights = [&](int step, uint4 (&to)[NI]) {
#pragma unroll
        for (int j = 0; j < NI; j++) to[j] = load_constant(weights + ((long long)step * NI + j) * 32);
    };
    auto load_inputs = [&](int step, uint4 (&to)[2 * MI]) {
        const int tap = POINT ? 0 : step / c.chunks;
        const int first = (step - tap * c.chunks) * 4 * per_lane, channel = first + quad * per_lane;
        if (POINT) {
#pragma unroll
            for (int r = 0; r < 2 * MI; r++) {
                const T* at = (const T*)c.input + rows[r] + first;
                to[r] = channel < c.channels_in ? *(const uint4*)at : zero4();
            }
        } else {
            const int ky = tap / c.kernel, kx = tap - ky * c.kernel;
#pragma unroll
            for (int r = 0; r < 2 * MI; r++) to[r] = gather<T>(c, patches[r], ky, kx, channel);
        }
    };

#pragma unroll
    for (int s = 0; s < STAGES; s++)
        if (wk + s * WK < steps) load_weights(wk + s * WK, b[s]);
    wait_for_inputs();
#pragma unroll
    for (int s = 0; s < STAGES; s++)
        if (wk + s * WK < steps) load_inputs(wk + s * WK, a[s]);
    load_addends();
    for (int first = wk; first < steps; first += STAGES * WK) {
#pragma unroll
        for (int s = 0; s < STAGES; s++) {
            const int step = first + s * WK, next = step + STAGES * WK;
            if (step >= steps) break;
#pragma unroll
            for (int mi = 0; mi < MI; mi++)
#pragma unroll
                for (int j = 0; j < NI; j++) {
                    const uint4 &upper = a[s][2 * mi], &lower = a[s][2 * mi + 1], &w = b[s][j];
                    Element<T>::mma(sums[mi][j], upper.x, lower.x, upper.y, lower.y, w.x, w.y);
                    Element<T>::mma(sums[mi][j], upper.z, lower.z, upper.w, lower.w, w.z, w.w);
                }
            if (next < steps) {
                load_weights(next, b[s]);
                load_inputs(next, a[s]);
            }
        }
    }
#endif

    if constexpr (WK > 1) {
        __shared__ Sum partial[(WK - 1) * WM * WN * MI * NI * 4 * 32];
        const int values = MI * NI * 4;
        const int mine = (wm * WN + wn) * values * 32 + lane;
        if (wk > 0) {
#pragma unroll
            for (int i = 0; i < values; i++)
                partial[(wk - 1) * WM * WN * values * 32 + mine + i * 32] = sums[i / 4 / NI][i / 4 % NI][i % 4];
        }
        __syncthreads();
        if (wk > 0) return;
#pragma unroll
        for (int k = 0; k < WK - 1; k++)
#pragma unroll
            for (int i = 0; i < values; i++)
                sums[i / 4 / NI][i / 4 % NI][i % 4] += partial[k * WM * WN * values * 32 + mine + i * 32];
    }

#pragma unroll
    for (int r = 0; r < 2 * MI; r++)
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
            Sum piece[PIECE];
#pragma unroll
            for (int i = 0; i < PIECE; i++) piece[i] = sums[r / 2][(p * PIECE + i) / 2][r % 2 * 2 + i % 2];
            finish<PIECE>(c, first_pixel + r * 8 + group, channel_out + p * PIECE, piece, biases[p], addends[r][p]);
        }
}

#define CONVOLUTION(NAME, T, MI, NI, WM, WN, WK, POINT)                                               \
    extern "C" __global__ void __launch_bounds__(32 * WM * WN * WK) NAME(const Convolution c) {       \
        convolve<T, MI, NI, WM, WN, WK, POINT>(c);                                                    \
    }
