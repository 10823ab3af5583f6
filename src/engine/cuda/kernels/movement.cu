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
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)r.pixels * r.pitch) return;
    const int pixel = (int)(thread / r.pitch), channel = (int)(thread % r.pitch);
    r.packed[thread] = to_half(channel < r.channels ? r.planar[(long long)channel * r.pixels + pixel] : 0.0f);
}

extern "C" __global__ void __launch_bounds__(128) unpack_planar(const Repack r) {
    let_next_start();
    wait_for_inputs();
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)r.pixels * r.channels) return;
    const int channel = (int)(thread / r.pixels), pixel = (int)(thread % r.pixels);
    r.planar[thread] = to_float(r.packed[(long long)pixel * r.pitch + channel]);
}

// The sum of one or two operands, each perhaps read through an upsampling by two. A thread adds 8 channels.
struct Sum {
    Residual a, b;
    f16* output;
    int width, pixels, pitch;
    int channels;  // a multiple of 8
};

extern "C" __global__ void __launch_bounds__(128) sum(const Sum s) {
    let_next_start();
    wait_for_inputs();
    const int groups = s.channels / 8;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)s.pixels * groups) return;
    const int pixel = (int)(thread / groups), channel = (int)(thread % groups) * 8;
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
    const int groups = p.channels / 8;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)p.out_height * p.out_width * groups) return;
    const int pixel = (int)(thread / groups), channel = (int)(thread % groups) * 8;
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

// A part of a concatenation that could not be written in its place. A thread copies one value.
struct Part {
    const f16* input;
    f16* output;  // from the part's first channel
    int pixels, in_pitch, out_pitch;
    int channels;
    int written;  // channels, those past the last as zeros
};

extern "C" __global__ void __launch_bounds__(128) copy_part(const Part p) {
    let_next_start();
    wait_for_inputs();
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= (long long)p.pixels * p.written) return;
    const int pixel = (int)(thread / p.written), channel = (int)(thread % p.written);
    const f16 value = channel < p.channels ? p.input[(long long)pixel * p.in_pitch + channel] : (f16)0;
    p.output[(long long)pixel * p.out_pitch + channel] = value;
}
