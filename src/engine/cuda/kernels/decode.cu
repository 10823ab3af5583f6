// From the heads' logits to a fixed-size result, as src/vision/decode does it: score filter, the
// best candidates, boxes, non-maximum suppression, and the mask.

// Thresholds of the frame; travels in front of the image.
struct FrameHeader {
    float logit;  // least, exclusive
    float iou;  // of two boxes of one class
    float cross_class_iou;
    int unused;
};

struct Level {
    const f16* classes;  // [cells][class_pitch]
    const f16* box_distribution;  // [cells][distribution_pitch]: bins of the left, top, right and bottom side
    int class_pitch, distribution_pitch;
    int width, cells;
    int stride;
    int first;  // place of the level's first candidate among all
};

// One object; `bbox` is in pixels of the source, clipped to it.
struct Detection {
    unsigned label;
    float score;
    float bbox[4];
};

struct Result {
    unsigned count;
    unsigned candidates;  // above the threshold
    unsigned unused[2];
    Detection detections[1];  // as many as `most`
};

struct Decode {
    Level levels[3];
    const FrameHeader* header;
    u64* keys;          // room for every class of every cell
    unsigned* counter;  // of keys; 0 before
    Result* result;
    int classes, bins;
    int places;  // classes of all cells of all levels
    int most;    // detections
    float scale[2], pad[2];  // source pixels to input pixels, x and y
    float source[2];  // width and height
};

// Orders like the logits, and on ties like the places, first before last.
__device__ __forceinline__ u64 key_of(float logit, unsigned place) {
    const unsigned bits = __float_as_uint(logit);
    const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (0xffffffffu - place);
}

__device__ __forceinline__ float logit_of(u64 key) {
    const unsigned ordered = (unsigned)(key >> 32);
    return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

__device__ __forceinline__ unsigned place_of(u64 key) { return 0xffffffffu - (unsigned)key; }

// A thread looks at one class of one cell.
extern "C" __global__ void __launch_bounds__(128) candidates(const Decode d) {
    let_next_start();
    wait_for_inputs();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= d.places) return;
    int level = 0;
    while (level < 2 && thread >= d.levels[level + 1].first) level++;
    const Level& l = d.levels[level];
    const int at = (int)thread - l.first;
    const int cell = at / d.classes, label = at - cell * d.classes;
    const float logit = to_float(l.classes[(long long)cell * l.class_pitch + label]);
    // Not-a-number is above no threshold.
    if (!(logit > d.header->logit) || !(logit <= 65504.0f)) return;
    const unsigned place = (unsigned)(l.first + label * l.cells + cell);
    // Where this runs alone, to be timed, no other kernel resets the counter.
    const unsigned at_key = atomicAdd(d.counter, 1u);
    if (at_key < (unsigned)d.places) d.keys[at_key] = key_of(logit, place);
}

const int DETECT_THREADS = 512;
const int MOST_CANDIDATES = 1000;

struct Candidates {
    float x_min[MOST_CANDIDATES], y_min[MOST_CANDIDATES], x_max[MOST_CANDIDATES], y_max[MOST_CANDIDATES];
    float score[MOST_CANDIDATES];
    unsigned label[MOST_CANDIDATES];
};

// The mean of a softmax over bins.
__device__ __forceinline__ float softmax_mean(const f16* logits, int bins) {
    float largest = to_float(logits[0]);
    for (int i = 1; i < bins; i++) largest = fmaxf(largest, to_float(logits[i]));
    float total = 0.0f, weighted = 0.0f;
    for (int i = 0; i < bins; i++) {
        const float e = expf(to_float(logits[i]) - largest);
        total += e;
        weighted += (float)i * e;
    }
    return weighted / total;
}

__device__ __forceinline__ bool finite(float v) { return fabsf(v) <= 3.402823466e38f; }

// One side of the box of slot `i`, 0 to 3: left, top, right, bottom; and with the first its class
// and score.
__device__ __forceinline__ void decode_side(const Decode& d, u64 key, Candidates& c, int i, int side) {
    const int place = (int)place_of(key);
    int level = 0;
    while (level < 2 && place >= d.levels[level + 1].first) level++;
    const Level& l = d.levels[level];
    const int label = (place - l.first) / l.cells, cell = (place - l.first) % l.cells;
    const float stride = (float)l.stride;
    const float x = ((float)(cell % l.width) + 0.5f) * stride, y = ((float)(cell / l.width) + 0.5f) * stride;
    const f16* logits = l.box_distribution + (long long)cell * l.distribution_pitch + side * d.bins;
    const float distance = stride * softmax_mean(logits, d.bins);
    switch (side) {
        case 0: c.x_min[i] = x - distance; break;
        case 1: c.y_min[i] = y - distance; break;
        case 2: c.x_max[i] = x + distance; break;
        default: c.y_max[i] = y + distance;
    }
    if (side > 0) return;
    c.label[i] = (unsigned)label;
    c.score[i] = 1.0f / (1.0f + expf(-logit_of(key)));
}

// Whether slot `a` comes before slot `b`: by falling score, then by class and position.
__device__ __forceinline__ bool before(const Candidates& c, int a, int b) {
    if (c.score[a] != c.score[b]) return c.score[a] > c.score[b];
    if (c.label[a] != c.label[b]) return c.label[a] < c.label[b];
    if (c.x_min[a] != c.x_min[b]) return c.x_min[a] < c.x_min[b];
    if (c.y_min[a] != c.y_min[b]) return c.y_min[a] < c.y_min[b];
    if (c.x_max[a] != c.x_max[b]) return c.x_max[a] < c.x_max[b];
    if (c.y_max[a] != c.y_max[b]) return c.y_max[a] < c.y_max[b];
    return a < b;
}

__device__ __forceinline__ float area(float x_min, float y_min, float x_max, float y_max) {
    return fmaxf(x_max - x_min, 0.0f) * fmaxf(y_max - y_min, 0.0f);
}

__device__ __forceinline__ float overlap(const Candidates& c, int a, int b) {
    const float common = area(fmaxf(c.x_min[a], c.x_min[b]), fmaxf(c.y_min[a], c.y_min[b]), fminf(c.x_max[a], c.x_max[b]),
                              fminf(c.y_max[a], c.y_max[b]));
    const float both = area(c.x_min[a], c.y_min[a], c.x_max[a], c.y_max[a]) +
                       area(c.x_min[b], c.y_min[b], c.x_max[b], c.y_max[b]) - common;
    return both > 0.0f ? common / both : 0.0f;
}

// The least of the `MOST_CANDIDATES` largest keys: byte by byte from the highest, by counting
// (radix selection). Keys are distinct, so that exactly that number of keys is at least as large.
__device__ __forceinline__ u64 least_selected(const Decode& d, unsigned count, unsigned (&histogram)[256], u64& prefix,
                                              unsigned& wanted) {
    if (threadIdx.x == 0) prefix = 0, wanted = MOST_CANDIDATES;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += DETECT_THREADS) histogram[i] = 0;
        __syncthreads();
        const u64 above = shift == 56 ? 0 : ~0ull << (shift + 8);
        for (unsigned i = threadIdx.x; i < count; i += DETECT_THREADS)
            if ((d.keys[i] & above) == prefix) atomicAdd(&histogram[d.keys[i] >> shift & 255], 1u);
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = 255;
            while (digit > 0 && histogram[digit] < wanted) wanted -= histogram[digit--];
            prefix |= (u64)digit << shift;
        }
        __syncthreads();
    }
    return prefix;
}

// One block: the best candidates, their boxes, sorted and suppressed, in pixels of the source.
extern "C" __global__ void __launch_bounds__(DETECT_THREADS) detect(const Decode d) {
    let_next_start();
    wait_for_inputs();
    __shared__ Candidates c;
    __shared__ u64 keys[MOST_CANDIDATES];
    __shared__ unsigned histogram[256];
    __shared__ u64 prefix;
    __shared__ unsigned wanted, taken;
    __shared__ unsigned short order[MOST_CANDIDATES], kept[MOST_CANDIDATES];
    __shared__ u8 suppressed[MOST_CANDIDATES];

    const unsigned found = (unsigned)min((int)*d.counter, d.places);
    const bool too_many = found > MOST_CANDIDATES;
    const u64 least = too_many ? least_selected(d, found, histogram, prefix, wanted) : 0;
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < found; i += DETECT_THREADS)
        if (d.keys[i] >= least) {
            const unsigned slot = atomicAdd(&taken, 1u);
            if (slot < MOST_CANDIDATES) keys[slot] = d.keys[i];
        }
    __syncthreads();
    const int n = min((int)taken, MOST_CANDIDATES);

    for (int i = threadIdx.x; i < 4 * n; i += DETECT_THREADS) decode_side(d, keys[i / 4], c, i / 4, i % 4);
    __syncthreads();
    // A box that is not finite gets a score below all others, and one that is, so that boxes have
    // an order.
    for (int i = threadIdx.x; i < n; i += DETECT_THREADS) {
        if (!(finite(c.x_min[i]) && finite(c.y_min[i]) && finite(c.x_max[i]) && finite(c.y_max[i]))) {
            c.score[i] = -1.0f;
            c.x_min[i] = c.y_min[i] = c.x_max[i] = c.y_max[i] = 0.0f;
        }
        suppressed[i] = 0;
    }
    __syncthreads();

    // Each candidate's place is the number of those before it: more comparisons than a sort takes,
    // and no barrier.
    for (int i = threadIdx.x; i < n; i += DETECT_THREADS) {
        int place = 0;
        for (int j = 0; j < n; j++) place += j != i && before(c, j, i);
        order[place] = (unsigned short)i;
    }
    __syncthreads();

    const float iou = d.header->iou, cross_class_iou = d.header->cross_class_iou;
    int count = 0;
    for (int i = 0; i < n && count < d.most; i++) {
        const int best = order[i];
        if (c.score[best] < 0.0f) break;
        if (suppressed[i]) continue;
        if (threadIdx.x == 0) kept[count] = (unsigned short)best;
        count++;
        for (int j = i + 1 + (int)threadIdx.x; j < n; j += DETECT_THREADS) {
            const int other = order[j];
            const float most = c.label[other] == c.label[best] ? iou : cross_class_iou;
            if (overlap(c, best, other) > most) suppressed[j] = 1;
        }
        __syncthreads();
    }
    __syncthreads();

    if (threadIdx.x == 0) {
        d.result->count = (unsigned)count;
        d.result->candidates = found;
    }
    for (int i = threadIdx.x; i < count; i += DETECT_THREADS) {
        const int k = kept[i];
        Detection out;
        out.label = c.label[k];
        out.score = c.score[k];
        out.bbox[0] = clamp((c.x_min[k] - d.pad[0]) / d.scale[0], 0.0f, d.source[0]);
        out.bbox[1] = clamp((c.y_min[k] - d.pad[1]) / d.scale[1], 0.0f, d.source[1]);
        out.bbox[2] = clamp((c.x_max[k] - d.pad[0]) / d.scale[0], 0.0f, d.source[0]);
        out.bbox[3] = clamp((c.y_max[k] - d.pad[1]) / d.scale[1], 0.0f, d.source[1]);
        d.result->detections[i] = out;
    }
}

struct Mask {
    const f16* logits;  // [cells of the map][pitch]
    const unsigned* columns;  // the map's column for each of the mask
    const unsigned* rows;
    u8* output;
    int pitch, classes;
    int map_width, width, height;
};

// A thread decides one cell: of equal logits the first class wins, and not-a-number never does.
extern "C" __global__ void __launch_bounds__(128) mask(const Mask m) {
    let_next_start();
    wait_for_inputs();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (unsigned)m.width * m.height) return;
    const int y = (int)(thread / m.width), x = (int)(thread % m.width);
    const f16* logits = m.logits + ((long long)m.rows[y] * m.map_width + m.columns[x]) * m.pitch;
    float best = -__int_as_float(0x7f800000);
    int label = 0;
    for (int i = 0; i < m.classes; i++) {
        const float logit = to_float(logits[i]);
        if (logit > best) best = logit, label = i;
    }
    m.output[thread] = (u8)label;
}
