// What losses and their gradients are made of: operations on tensors in single precision, [outer][n][inner] where they
// go along an axis. Each value is made by one thread or one block, and every sum has a fixed order.

// ---- value by value ----

// What is done to each value, in registers: those of the inputs first, then one for each instruction.
struct Instruction {
    unsigned short operation, first, second;
    unsigned short number;  // index of its first number
};

struct Pointwise {
    float* result;
    const float* numbers;
    const float* inputs[6];
    int strides[6][4];  // 0 along an axis where one value stands for all
    int sizes[4];
    int result_strides[4];
    int count, inputs_used, instructions_used, unused;
    Instruction instructions[24];
};

// The order is that of `code` in net/cuda/losses/pointwise.rs.
__device__ __forceinline__ float operate(int operation, float x, float y, const float* n) {
    switch (operation) {
        case 0: return expf(x);
        case 1: return logf(x);
        case 2: return sqrtf(x);
        case 3: return x * x;
        case 4: return fabsf(x);
        case 5: return -x;
        case 6: return 1.0f / x;
        case 7: return x >= 0.0f ? x : 0.0f;
        case 8: return 1.0f / (1.0f + expf(-x));
        case 9: return x * n[0] + n[1];
        case 10: return powf(x, n[0]);
        case 11: return x > n[0] ? x : n[0];
        case 12: return x < n[0] ? x : n[0];
        case 13: return x > n[0] ? 1.0f : 0.0f;
        case 14: return x > n[0] ? 1.0f : x == n[0] ? 0.5f : 0.0f;
        case 15: return x >= 0.0f ? 1.0f : 0.0f;
        case 16: return x >= 0.0f ? 1.0f : -1.0f;
        case 17: return x + y;
        case 18: return x - y;
        case 19: return x * y;
        case 20: return x / y;
        case 21: return x < y ? x : y;
        case 22: return x > y ? x : y;
        case 23: return x > y ? 1.0f : x == y ? 0.5f : 0.0f;
        case 24: return n[0];
        case 26: return 0.0f;
        default: return x;
    }
}

ENTRY(pointwise, Pointwise) {
    start();
    const int i = flat_thread();
    if (i >= a.count) return;
    int place[4], rest = i;
    for (int d = 3; d >= 0; d--) place[d] = rest % a.sizes[d], rest /= a.sizes[d];
    float registers[30];
    for (int k = 0; k < a.inputs_used; k++) {
        long long at = 0;
        for (int d = 0; d < 4; d++) at += (long long)place[d] * a.strides[k][d];
        registers[k] = a.inputs[k][at];
    }
    for (int k = 0; k < a.instructions_used; k++) {
        const Instruction c = a.instructions[k];
        registers[a.inputs_used + k] =
            operate(c.operation, registers[c.first], registers[c.second], a.numbers + c.number);
    }
    long long to = 0;
    for (int d = 0; d < 4; d++) to += (long long)place[d] * a.result_strides[d];
    a.result[to] = registers[a.inputs_used + a.instructions_used - 1];
}

// ---- along an axis ----

struct Along {
    const float* input;
    float* result;
    int outer, n, inner;
    int chunk, chunks;  // of n; the result is [outer][chunks][inner]
    int largest;        // instead of the sum
};

__device__ __forceinline__ float together(const Along& a, float x, float y) { return a.largest ? (y > x ? y : x) : x + y; }
__device__ __forceinline__ float nothing(const Along& a) { return a.largest ? -__int_as_float(0x7f800000) : 0.0f; }

// The first and the last value of a result, and what lies between two.
struct Stretch {
    int from, to;
    const float* input;

    __device__ __forceinline__ Stretch(const Along& a, int at) {
        const int inner = at % a.inner, row = at / a.inner, chunk = row % a.chunks, outer = row / a.chunks;
        from = chunk * a.chunk, to = min(from + a.chunk, a.n);
        input = a.input + (long long)outer * a.n * a.inner + inner;
    }
};

// A thread for each result.
ENTRY(along, Along) {
    start();
    const int i = flat_thread();
    if (i >= a.outer * a.chunks * a.inner) return;
    const Stretch s(a, i);
    float sum = nothing(a);
    for (int k = s.from; k < s.to; k++) sum = together(a, sum, s.input[(long long)k * a.inner]);
    a.result[i] = sum;
}

// Of one value of each thread of a block.
template <class Together>
__device__ __forceinline__ float over_block(float v, float (&shared)[THREADS], Together together) {
    shared[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = together(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    const float all = shared[0];
    __syncthreads();
    return all;
}

// A block for each result.
ENTRY(along_wide, Along) {
    __shared__ float shared[THREADS];
    start();
    const Stretch s(a, blockIdx.x);
    float sum = nothing(a);
    for (int k = s.from + threadIdx.x; k < s.to; k += THREADS) sum = together(a, sum, s.input[(long long)k * a.inner]);
    sum = over_block(sum, shared, [&](float x, float y) { return together(a, x, y); });
    if (threadIdx.x == 0) a.result[blockIdx.x] = sum;
}

// ---- rows ----

struct Rows {
    const float* input;
    float* result;
    int rows, n;
};

ENTRY(log_softmax, Rows) {
    start();
    const int i = flat_thread();
    if (i >= a.rows) return;
    const float* x = a.input + (long long)i * a.n;
    float most = x[0], sum = 0.0f;
    for (int k = 1; k < a.n; k++) most = fmaxf(most, x[k]);
    for (int k = 0; k < a.n; k++) sum += expf(x[k] - most);
    const float log_sum = logf(sum);
    for (int k = 0; k < a.n; k++) a.result[(long long)i * a.n + k] = x[k] - most - log_sum;
}

ENTRY(log_softmax_wide, Rows) {
    __shared__ float shared[THREADS];
    start();
    const float* x = a.input + (long long)blockIdx.x * a.n;
    float most = x[0], sum = 0.0f;
    for (int k = threadIdx.x; k < a.n; k += THREADS) most = fmaxf(most, x[k]);
    most = over_block(most, shared, [](float x, float y) { return fmaxf(x, y); });
    for (int k = threadIdx.x; k < a.n; k += THREADS) sum += expf(x[k] - most);
    const float log_sum = logf(over_block(sum, shared, [](float x, float y) { return x + y; }));
    for (int k = threadIdx.x; k < a.n; k += THREADS) a.result[(long long)blockIdx.x * a.n + k] = x[k] - most - log_sum;
}

// 1 at the first of the largest.
ENTRY(one_hot_of_max, Rows) {
    start();
    const int i = flat_thread();
    if (i >= a.rows) return;
    const float* x = a.input + (long long)i * a.n;
    int best = 0;
    for (int k = 1; k < a.n; k++)
        if (x[k] > x[best]) best = k;
    for (int k = 0; k < a.n; k++) a.result[(long long)i * a.n + k] = k == best ? 1.0f : 0.0f;
}

// ---- parts ----

struct Parts {
    const float* input;
    float* result;
    const unsigned* index;   // to gather: of each part; to scatter: the parts, in the order of their places
    const unsigned* starts;  // to scatter: of each place the first in `index`, and one more
    int outer, n, inner;     // of the input
    int parts;               // of the result
};

ENTRY(gather, Parts) {
    start();
    const int i = flat_thread();
    if (i >= a.outer * a.parts * a.inner) return;
    const int inner = i % a.inner, part = i / a.inner % a.parts, outer = i / a.inner / a.parts;
    a.result[i] = a.input[((long long)outer * a.n + a.index[part]) * a.inner + inner];
}

ENTRY(scatter, Parts) {
    start();
    const int i = flat_thread();
    if (i >= a.outer * a.parts * a.inner) return;
    const int inner = i % a.inner, part = i / a.inner % a.parts, outer = i / a.inner / a.parts;
    float sum = 0.0f;
    for (unsigned k = a.starts[part]; k < a.starts[part + 1]; k++)
        sum += a.input[((long long)outer * a.n + a.index[k]) * a.inner + inner];
    a.result[i] = sum;
}

// ---- products of matrices ----

struct Product {
    const float* first;   // [batch][m][k] by these strides
    const float* second;  // [batch][k][n] likewise
    float* result;        // [batch][m][n]
    int first_strides[3], second_strides[3];
    int batch, m, k, n;
};

ENTRY(product, Product) {
    start();
    const int i = flat_thread();
    if (i >= a.batch * a.m * a.n) return;
    const int column = i % a.n, row = i / a.n % a.m, batch = i / a.n / a.m;
    const float* x = a.first + (long long)batch * a.first_strides[0] + (long long)row * a.first_strides[1];
    const float* y = a.second + (long long)batch * a.second_strides[0] + (long long)column * a.second_strides[2];
    float sum = 0.0f;
    for (int k = 0; k < a.k; k++) sum += x[(long long)k * a.first_strides[2]] * y[(long long)k * a.second_strides[1]];
    a.result[i] = sum;
}
