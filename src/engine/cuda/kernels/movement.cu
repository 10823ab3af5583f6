// What has no weights and makes each value of its own place: between layouts, sums, upsampling,
// concatenation, and activations and factors by themselves.

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
    r.packed[to.thread] = to_finite_half(channel < r.channels ? r.planar[(long long)channel * r.pixels + to.pixel] : 0.0f);
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
    unsigned* saturated;  // see count_saturated
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
    count_saturated<8>(s.saturated, v);
    *(uint4*)(s.output + (long long)pixel * s.pitch + channel) = pack8(v);
}

// Each value times its channel's factor, where there are factors, then an activation. A thread makes
// 8 channels.
struct Elementwise {
    const f16* input;
    const f16* factors;  // a pixel; null: none
    f16* output;
    unsigned* saturated;  // see count_saturated
    int pixels, in_pitch, out_pitch;
    int channels;  // a multiple of 8
    int activation;
};

extern "C" __global__ void __launch_bounds__(128) elementwise(const Elementwise e) {
    let_next_start();
    wait_for_inputs();
    const Moved to(e.pixels, e.channels / 8);
    if (to.outside) return;
    const int channel = to.channel * 8;
    float v[8], factors[8] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    unpack8(*(const uint4*)(e.input + (long long)to.pixel * e.in_pitch + channel), v);
    if (e.factors) unpack8(*(const uint4*)(e.factors + channel), factors);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = activate(e.activation, v[i] * factors[i]);
    count_saturated<8>(e.saturated, v);
    *(uint4*)(e.output + (long long)to.pixel * e.out_pitch + channel) = pack8(v);
}

extern "C" __global__ void __launch_bounds__(128) copy_part(const Part p) { copy<f16>(p); }

extern "C" __global__ void __launch_bounds__(128) gather(const Gather g) { gather_channels<f16>(g); }
