// The update of all parameters at once: clipping by the global norm, AdamW (Loshchilov & Hutter 2019,
// algorithm 2) or SGD with momentum, and the moving average.
//
// Parameters lie in one array, each tensor from a multiple of 256 values on: a block has values of one
// tensor, with its own rate and decay. What is between them stays zero.

// What changes from step to step; StepConstants in net/cuda/update.rs.
struct Step {
    float rate;      // AdamW: divided by 1 - beta1^t
    float decay;     // times the rate with AdamW, alone with SGD
    float root;      // AdamW: 1 / sqrt(1 - beta2^t)
    float momentum;  // of SGD
    float clip;
    float keep;          // of the moving average
    float loss_scale;    // by which the gradients are too large
    float unused;
};

// What came of a step.
struct Outcome {
    float norm;   // before clipping
    float scale;  // of the gradients
    float sound;  // 1 where the norm is finite; otherwise nothing is updated
    float unused;
};

// Of a block of 256 values.
struct Group {
    float rate;
    float decay;
};

struct Update {
    float* values;
    float* gradients;
    float* first;   // moment, or SGD's velocity
    float* second;  // moment; null with SGD
    float* average;
    const Group* groups;
    const Step* step;
    double* partial;
    Outcome* outcome;
    const float* loss;  // null, or one that has to be finite
    long long count;    // trainable values
    long long follows;  // values that the average has
    int chunk;          // values of a block of `squares`
    int parts;          // its blocks
};

// Sums a value of each thread of a block, in an order that is fixed; the same for all threads.
__device__ __forceinline__ double over_block(double v, double (&shared)[THREADS]) {
    shared[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

ENTRY(squares, Update) {
    __shared__ double shared[THREADS];
    start();
    const long long from = (long long)blockIdx.x * a.chunk;
    const long long to = from + a.chunk < a.count ? from + a.chunk : a.count;
    double sum = 0.0;
    for (long long i = from + threadIdx.x; i < to; i += THREADS) sum += (double)a.gradients[i] * a.gradients[i];
    sum = over_block(sum, shared);
    if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

// One block.
ENTRY(clip, Update) {
    __shared__ double shared[THREADS];
    start();
    double sum = 0.0;
    for (int i = threadIdx.x; i < a.parts; i += THREADS) sum += a.partial[i];
    sum = over_block(sum, shared);
    if (threadIdx.x) return;
    const float unscale = 1.0f / a.step->loss_scale, norm = (float)sqrt(sum) * unscale;
    a.outcome->norm = norm;
    const float checked = a.loss ? norm + *a.loss : norm;
    a.outcome->sound = checked - checked == 0.0f ? 1.0f : 0.0f;
    a.outcome->scale = unscale * (norm > a.step->clip ? a.step->clip / norm : 1.0f);
}

// Leaves the gradient at zero, for the next pass to add to.
__device__ __forceinline__ bool gradient_of(const Update& a, long long i, float& gradient) {
    if (i >= a.count) return false;
    gradient = a.gradients[i] * a.outcome->scale;
    a.gradients[i] = 0.0f;
    return a.outcome->sound != 0.0f;
}

ENTRY(adamw, Update) {
    start();
    const int i = flat_thread();
    float g;
    if (!gradient_of(a, i, g)) return;
    const Group group = a.groups[blockIdx.x];
    const float m = 0.9f * a.first[i] + (1.0f - 0.9f) * g, v = 0.999f * a.second[i] + (1.0f - 0.999f) * g * g;
    a.first[i] = m, a.second[i] = v;
    const float shrink = 1.0f - a.step->decay * group.rate * group.decay;
    a.values[i] = a.values[i] * shrink - a.step->rate * group.rate * m / (sqrtf(v) * a.step->root + 1e-8f);
}

ENTRY(sgd, Update) {
    start();
    const int i = flat_thread();
    float g;
    if (!gradient_of(a, i, g)) return;
    const Group group = a.groups[blockIdx.x];
    const float velocity = a.step->momentum * a.first[i] + g + a.step->decay * group.decay * a.values[i];
    a.first[i] = velocity;
    a.values[i] -= a.step->rate * group.rate * velocity;
}

// The moving average of all values, statistics included; it stays where the update was left out.
ENTRY(average, Update) {
    start();
    const int i = flat_thread();
    if (i >= a.follows || a.outcome->sound == 0.0f) return;
    // So that an average of what does not change stays that to the last bit.
    a.average[i] += (1.0f - a.step->keep) * (a.values[i] - a.average[i]);
}

ENTRY(clear, Update) {
    start();
    const int i = flat_thread();
    if (i < a.count) a.gradients[i] = 0.0f;
}
