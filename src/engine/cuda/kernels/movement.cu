// What moves values without multiplying them: between layouts, sums, upsampling, concatenation.

// Planar single precision [channels][pixels] to and from channels-last half precision.
struct Repack {
    float* planar;
    f16* packed;
    int channels, pixels, pitch;
};

// A thread writes one value; channels past the last are zeros.
extern "C" __global__ void __launch_bounds__(128) pack_planar(const Repack r) {
    let_next_start();
    wait_for_inputs();
    const Moved to(r.pixels, r.pitch);
    if (to.outside) return;
    const int channel = to.channel;
    r.packed[to.thread] = to_half(channel < r.channels ? r.planar[(long long)channel * r.pixels + to.pixel] : 0.0f);
}

extern "C" __global__ void __launch_bounds__(128) unpack_planar(const Repack r) {
    let_next_start();
    wait_for_inputs();
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)r.pixels * r.channels) return;
    const int channel = (int)(thread / r.pixels), pixel = (int)(thread % r.pixels);
    r.planar[thread] = to_float(r.packed[(long long)pixel * r.pitch + channel]);
}

// The sum of one or two operands, each perhaps read through an upsampling by two. A thread adds 8
// channels.
struct Sum {
    Residual a, b;
    f16* output;
    int width, pixels, pitch;
    int channels;  // a multiple of 8
};

extern "C" __global__ void __launch_bounds__(128) sum(const Sum s) {
    let_next_start();
    wait_for_inputs();
    const Moved to(s.pixels, s.channels / 8);
    if (to.outside) return;
    const int pixel = to.pixel, channel = to.channel * 8;
    float v[8];
    unpack8(*(const uint4*)(residual_at<f16>(s.a, pixel, s.width) + channel), v);
    if (s.b.values) {
        float w[8];
        unpack8(*(const uint4*)(residual_at<f16>(s.b, pixel, s.width) + channel), w);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += w[i];
    }
    *(uint4*)(s.output + (long long)pixel * s.pitch + channel) = pack8(v);
}

// The largest value of each window, padding left out. A thread finds 8 channels of one pixel.
struct Pool : Window {
    const f16* input;
    f16* output;
    int channels;  // a multiple of 8
};

extern "C" __global__ void __launch_bounds__(128) max_pool(const Pool p) {
    let_next_start();
    wait_for_inputs();
    const Moved to(p.out_height * p.out_width, p.channels / 8);
    if (to.outside) return;
    const int pixel = to.pixel, channel = to.channel * 8;
    const int top = pixel / p.out_width * p.stride - p.pad_top, left = pixel % p.out_width * p.stride - p.pad_left;
    float most[8];
    for (int i = 0; i < 8; i++) most[i] = -__int_as_float(0x7f800000);
    for (int y = max(top, 0); y < min(top + p.kernel, p.in_height); y++)
        for (int x = max(left, 0); x < min(left + p.kernel, p.in_width); x++) {
            float v[8];
            unpack8(*(const uint4*)(p.input + ((long long)y * p.in_width + x) * p.in_pitch + channel), v);
            for (int i = 0; i < 8; i++) most[i] = fmaxf(most[i], v[i]);
        }
    *(uint4*)(p.output + (long long)pixel * p.out_pitch + channel) = pack8(most);
}

extern "C" __global__ void __launch_bounds__(128) copy_part(const Part p) { copy<f16>(p); }
