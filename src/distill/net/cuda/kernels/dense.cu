// Dense convolutions as matrix products over the whole batch, without a copy of the windows: forward,
// the gradient of the input, and the gradient of the weights.
//
// Weights are [out][kernel row][kernel column][in]. A block makes a tile of TM × TN results, a thread
// 16 of them, from slabs of DEPTH terms in shared memory: in half precision by tensor cores, and
// otherwise by itself.

static const int DEPTH = 16;

// A side's terms of a slab.
template <int SIDE>
struct Slab {
#ifdef PEREGRINE_HALF
    f16 terms[SIDE][DEPTH + 8];
    __device__ __forceinline__ void put(int k, int at, float v) { terms[at][k] = to_half(v); }
    __device__ __forceinline__ unsigned pair(int k, int at) const { return *(const unsigned*)&terms[at][k]; }
#else
    float terms[DEPTH][SIDE + 4];
    __device__ __forceinline__ void put(int k, int at, float v) { terms[k][at] = v; }
#endif
};

// What a thread makes: sums[i][j] is result (m(i, j), n(i, j)) of the tile.
template <int TM, int TN>
struct Tile {
    static_assert(TM * TN == 16 * THREADS && TN % 32 == 0, "a thread makes 16 results, a warp 16 x 32");
    static const int A_EACH = TM * DEPTH / THREADS, B_EACH = TN * DEPTH / THREADS, ROW_STEP = THREADS / DEPTH;
    float sums[4][4];
    int row, column;

    __device__ __forceinline__ Tile() {
#ifdef PEREGRINE_HALF
        // The tensor cores' fragments: PTX ISA 8.8, section 9.7.14.5.8.
        const int warp = threadIdx.x / 32;
        row = warp / (TN / 32) * 16, column = warp % (TN / 32) * 32;
#else
        row = threadIdx.x / (TN / 4) * 4, column = threadIdx.x % (TN / 4) * 4;
#endif
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    }

#ifdef PEREGRINE_HALF
    __device__ __forceinline__ int m(int, int j) const { return row + threadIdx.x % 32 / 4 + j / 2 * 8; }
    __device__ __forceinline__ int n(int i, int j) const { return column + i * 8 + threadIdx.x % 4 * 2 + j % 2; }

    __device__ __forceinline__ void add(const Slab<TM>& a, const Slab<TN>& b) {
        const int group = threadIdx.x % 32 / 4, k = threadIdx.x % 4 * 2, upper = row + group;
        const unsigned a0 = a.pair(k, upper), a1 = a.pair(k, upper + 8);
        const unsigned a2 = a.pair(k + 8, upper), a3 = a.pair(k + 8, upper + 8);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = column + i * 8 + group;
            mma_f16(sums[i], a0, a1, a2, a3, b.pair(k, at), b.pair(k + 8, at));
        }
    }
#else
    __device__ __forceinline__ int m(int i, int) const { return row + i; }
    __device__ __forceinline__ int n(int, int j) const { return column + j; }

    __device__ __forceinline__ void add(const Slab<TM>& a, const Slab<TN>& b) {
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            const float4 u = *(const float4*)&a.terms[k][row], v = *(const float4*)&b.terms[k][column];
            const float x[4] = {u.x, u.y, u.z, u.w}, y[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] += x[i] * y[j];
        }
    }
#endif
};

// A term of a window, as k = (row · kernel + column) · channels + channel.
struct Tap {
    int y, x, channel;

    __device__ __forceinline__ Tap(int k, int kernel, int channels) {
        const int tap = k / channels;
        channel = k - tap * channels;
        y = tap / kernel, x = tap - y * kernel;
    }
    __device__ __forceinline__ void advance(int by, int kernel, int channels) {
        channel += by;
        while (channel >= channels) {
            channel -= channels;
            if (++x == kernel) x = 0, y++;
        }
    }
};

struct DenseForward : Windowed {
    const real* input;
    const float* weights;
    const float* bias;  // null where a norm follows: then `output` is the convolution alone
    real* output;
    real* alone;  // ahead of bias and activation; null where nobody reads it
    int activation;
};

template <int TM, int TN>
__device__ __forceinline__ void forward(const DenseForward& a) {
    __shared__ __align__(16) Slab<TM> as;
    __shared__ __align__(16) Slab<TN> bs;
    typedef Tile<TM, TN> T;
    start();
    T tile;
    const int pixels = a.images * a.out_height * a.out_width, depth = a.kernel * a.kernel * a.in_channels;
    const int m0 = blockIdx.x * TM, n0 = blockIdx.y * TN, lane = threadIdx.x % DEPTH, first = threadIdx.x / DEPTH;
    int image[T::A_EACH], top[T::A_EACH], left[T::A_EACH];
#pragma unroll
    for (int i = 0; i < T::A_EACH; i++) {
        const int m = m0 + first + i * T::ROW_STEP;
        const Pixel p(m < pixels ? m : 0, a.out_height, a.out_width);
        image[i] = p.image, left[i] = p.x * a.stride - a.pad_left;
        top[i] = m < pixels ? p.y * a.stride - a.pad_top : -(1 << 28);
    }
    Tap tap(lane, a.kernel, a.in_channels);
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        const int k = k0 + lane;
#pragma unroll
        for (int i = 0; i < T::A_EACH; i++) {
            const int y = top[i] + tap.y, x = left[i] + tap.x;
            const bool inside = k < depth && (unsigned)y < (unsigned)a.in_height && (unsigned)x < (unsigned)a.in_width;
            const long long at = ((long long)image[i] * a.in_height + y) * a.in_width + x;
            as.put(lane, first + i * T::ROW_STEP, inside ? value(a.input + at * a.in_channels + tap.channel) : 0.0f);
        }
#pragma unroll
        for (int i = 0; i < T::B_EACH; i++) {
            const int n = n0 + first + i * T::ROW_STEP;
            const bool inside = k < depth && n < a.out_channels;
            bs.put(lane, first + i * T::ROW_STEP, inside ? a.weights[(long long)n * depth + k] : 0.0f);
        }
        __syncthreads();
        tile.add(as, bs);
        __syncthreads();
        tap.advance(DEPTH, a.kernel, a.in_channels);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int m = m0 + tile.m(i, j), n = n0 + tile.n(i, j);
            if (m >= pixels || n >= a.out_channels) continue;
            const long long at = (long long)m * a.out_channels + n;
            float v = tile.sums[i][j];
            if (a.alone) store(a.alone + at, v);
            if (a.bias) v = activate(a.activation, v + a.bias[n]);
            store(a.output + at, v);
        }
}

struct DenseInput : Windowed {
    const real* gradient;
    const float* weights;
    real* result;
};

// A result is an input value: the sum over the windows that cover it.
template <int TM, int TN>
__device__ __forceinline__ void input_gradient(const DenseInput& a) {
    __shared__ __align__(16) Slab<TM> as;
    __shared__ __align__(16) Slab<TN> bs;
    typedef Tile<TM, TN> T;
    start();
    T tile;
    const int pixels = a.images * a.in_height * a.in_width, taps = a.kernel * a.kernel, depth = taps * a.out_channels;
    const int m0 = blockIdx.x * TM, n0 = blockIdx.y * TN, lane = threadIdx.x % DEPTH, first = threadIdx.x / DEPTH;
    const int column = threadIdx.x % TN, slab = threadIdx.x / TN;
    int image[T::A_EACH], top[T::A_EACH], left[T::A_EACH];
#pragma unroll
    for (int i = 0; i < T::A_EACH; i++) {
        const int m = m0 + first + i * T::ROW_STEP;
        const Pixel p(m < pixels ? m : 0, a.in_height, a.in_width);
        image[i] = p.image, left[i] = p.x + a.pad_left;
        top[i] = m < pixels ? p.y + a.pad_top : -(1 << 28);
    }
    Tap tap(lane, a.kernel, a.out_channels);
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        const int k = k0 + lane;
#pragma unroll
        for (int i = 0; i < T::A_EACH; i++) {
            const int from_y = top[i] - tap.y, from_x = left[i] - tap.x;
            bool inside = k < depth && from_y >= 0 && from_x >= 0;
            int y = from_y, x = from_x;
            if (a.stride > 1) {
                y = from_y / a.stride, x = from_x / a.stride;
                inside = inside && y * a.stride == from_y && x * a.stride == from_x;
            }
            inside = inside && y < a.out_height && x < a.out_width;
            const long long at = ((long long)image[i] * a.out_height + y) * a.out_width + x;
            as.put(lane, first + i * T::ROW_STEP, inside ? value(a.gradient + at * a.out_channels + tap.channel) : 0.0f);
        }
#pragma unroll
        for (int i = 0; i < T::B_EACH; i++) {
            const int row = slab + i * (THREADS / TN), at = k0 + row, n = n0 + column;
            const int which = a.kernel == 1 ? 0 : at / a.out_channels, out = at - which * a.out_channels;
            const bool inside = at < depth && n < a.in_channels;
            bs.put(row, column, inside ? a.weights[((long long)out * taps + which) * a.in_channels + n] : 0.0f);
        }
        __syncthreads();
        tile.add(as, bs);
        __syncthreads();
        tap.advance(DEPTH, a.kernel, a.out_channels);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int m = m0 + tile.m(i, j), n = n0 + tile.n(i, j);
            if (m < pixels && n < a.in_channels)
                put(a.result + (long long)m * a.in_channels + n, tile.sums[i][j], a.keep);
        }
}

struct DenseWeights : Windowed {
    const real* input;
    const real* gradient;
    float* partial;  // [blockIdx.z][out][term of the window]
    int chunk;       // output pixels of a blockIdx.z
};

// A result is a weight: a part of the sum over all output pixels, which `reduce` completes.
template <int TM, int TN>
__device__ __forceinline__ void weight_gradient(const DenseWeights& a) {
    __shared__ __align__(16) Slab<TM> as;
    __shared__ __align__(16) Slab<TN> bs;
    typedef Tile<TM, TN> T;
    start();
    T tile;
    const int pixels = a.images * a.out_height * a.out_width, terms = a.kernel * a.kernel * a.in_channels;
    const int m0 = blockIdx.x * TM, n0 = blockIdx.y * TN;
    const int from = blockIdx.z * a.chunk, to = min(from + a.chunk, pixels);
    const int a_column = threadIdx.x % TM, a_row = threadIdx.x / TM, out = m0 + a_column;
    const int b_column = threadIdx.x % TN, b_row = threadIdx.x / TN, term = n0 + b_column;
    const bool has_term = term < terms;
    const Tap tap(has_term ? term : 0, a.kernel, a.in_channels);
    const bool plain = a.kernel == 1 && a.stride == 1;
    for (int p0 = from; p0 < to; p0 += DEPTH) {
#pragma unroll
        for (int i = 0; i < T::A_EACH; i++) {
            const int row = a_row + i * (THREADS / TM), p = p0 + row;
            const bool inside = p < to && out < a.out_channels;
            as.put(row, a_column, inside ? value(a.gradient + (long long)p * a.out_channels + out) : 0.0f);
        }
#pragma unroll
        for (int i = 0; i < T::B_EACH; i++) {
            const int row = b_row + i * (THREADS / TN), p = p0 + row;
            bool inside = p < to && has_term;
            long long at = p;
            if (!plain && inside) {
                const Pixel of(p, a.out_height, a.out_width);
                const int y = of.y * a.stride - a.pad_top + tap.y, x = of.x * a.stride - a.pad_left + tap.x;
                inside = (unsigned)y < (unsigned)a.in_height && (unsigned)x < (unsigned)a.in_width;
                at = ((long long)of.image * a.in_height + y) * a.in_width + x;
            }
            bs.put(row, b_column, inside ? value(a.input + at * a.in_channels + tap.channel) : 0.0f);
        }
        __syncthreads();
        tile.add(as, bs);
        __syncthreads();
    }
    float* partial = a.partial + (long long)blockIdx.z * a.out_channels * terms;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int m = m0 + tile.m(i, j), n = n0 + tile.n(i, j);
            if (m < a.out_channels && n < terms) partial[(long long)m * terms + n] = tile.sums[i][j];
        }
}

// Tiles for few results along one side, and for many along both.
ENTRY(dense_forward, DenseForward) { forward<64, 64>(a); }
ENTRY(dense_forward_narrow, DenseForward) { forward<128, 32>(a); }
ENTRY(dense_input, DenseInput) { input_gradient<64, 64>(a); }
ENTRY(dense_input_narrow, DenseInput) { input_gradient<128, 32>(a); }
ENTRY(dense_weights, DenseWeights) { weight_gradient<64, 64>(a); }
ENTRY(dense_weights_flat, DenseWeights) { weight_gradient<32, 128>(a); }
ENTRY(dense_weights_narrow, DenseWeights) { weight_gradient<128, 32>(a); }

struct Reduce {
    const float* partial;  // [parts][count]
    float* sums;           // added to
    int count, parts;
};

ENTRY(reduce, Reduce) {
    start();
    const int i = flat_thread();
    if (i >= a.count) return;
    float sum = 0.0f;
    for (int part = 0; part < a.parts; part++) sum += a.partial[(long long)part * a.count + i];
    a.sums[i] += sum;
}
