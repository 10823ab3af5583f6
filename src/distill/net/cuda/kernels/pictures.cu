// Inputs of the network from images in the device's memory: the arithmetic of src/distill/picture.rs, in its order.

// A part of an input, and what it shows.
struct PictureTile {
    const u8* pixels;  // red, green, blue, row by row
    int width, height;  // of the image
    float origin[2], step[2];  // image = origin + step · input, along x and y
    int taps[2];  // samples of an input pixel
    float saturation, gain, offset;
    int left, top, right, bottom;  // of the part; right and bottom are the first outside
    int unused;
};

// The tiles of one input, and then those that are blended into it.
struct Picture {
    int tiles, blended;
    float share;  // of what is blended in
    int unused;
    PictureTile tile[8];
};

struct Pictures {
    const Picture* pictures;
    float* planar;  // [image][channel][y][x], normalised
    float mean[3], std[3];
    int images, height, width;
    int unused;
};

// The place in the image. Rounded as on the CPU, so that the same samples lie outside the image.
__device__ __forceinline__ float place(const PictureTile& tile, int axis, int at, int tap) {
    const float across = __fadd_rn((float)at, ((float)tap + 0.5f) / (float)tile.taps[axis]);
    return __fadd_rn(tile.origin[axis], __fmul_rn(tile.step[axis], across));
}

// The image between the centres of its pixels, with its change of colour; false outside it.
__device__ __forceinline__ bool sample(const PictureTile& tile, float x, float y, float (&rgb)[3]) {
    if (x < 0.0f || y < 0.0f || x >= (float)tile.width || y >= (float)tile.height) return false;
    x = fmaxf(x - 0.5f, 0.0f), y = fmaxf(y - 0.5f, 0.0f);
    const int x0 = (int)x, y0 = (int)y, x1 = min(x0 + 1, tile.width - 1), y1 = min(y0 + 1, tile.height - 1);
    const float fx = x - (float)x0, fy = y - (float)y0;
    const u8* row0 = tile.pixels + (long long)y0 * tile.width * 3;
    const u8* row1 = tile.pixels + (long long)y1 * tile.width * 3;
#pragma unroll
    for (int c = 0; c < 3; c++) {
        const float a = row0[x0 * 3 + c], b = row0[x1 * 3 + c], d = row1[x0 * 3 + c], e = row1[x1 * 3 + c];
        const float upper = a + fx * (b - a), lower = d + fx * (e - d);
        rgb[c] = upper + fy * (lower - upper);
    }
    const float grey = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
#pragma unroll
    for (int c = 0; c < 3; c++)
        rgb[c] = clamp((grey + tile.saturation * (rgb[c] - grey)) * tile.gain + tile.offset, 0.0f, 255.0f);
    return true;
}

// What `count` tiles show at a pixel of the input.
__device__ __forceinline__ void show(const Pictures& a, const PictureTile* tiles, int count, int x, int y, float (&v)[3]) {
    const PictureTile* tile = tiles;
    while (tile < tiles + count - 1 && !(x >= tile->left && x < tile->right && y >= tile->top && y < tile->bottom)) tile++;
    const float share = 1.0f / (float)(tile->taps[0] * tile->taps[1]);
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (int ty = 0; ty < tile->taps[1]; ty++) {
        const float at_y = place(*tile, 1, y, ty);
        for (int tx = 0; tx < tile->taps[0]; tx++) {
            float rgb[3];
            if (!sample(*tile, place(*tile, 0, x, tx), at_y, rgb)) rgb[0] = a.mean[0], rgb[1] = a.mean[1], rgb[2] = a.mean[2];
#pragma unroll
            for (int c = 0; c < 3; c++) sum[c] += share * rgb[c];
        }
    }
#pragma unroll
    for (int c = 0; c < 3; c++) v[c] = (sum[c] - a.mean[c]) / a.std[c];
}

// A thread makes one pixel of an input.
ENTRY(render, Pictures) {
    start();
    const int i = flat_thread(), plane = a.height * a.width;
    if (i >= (long long)a.images * plane) return;
    const int image = i / plane, at = i % plane, y = at / a.width, x = at % a.width;
    const Picture& picture = a.pictures[image];
    float v[3];
    show(a, picture.tile, picture.tiles, x, y, v);
    if (picture.blended) {
        float other[3];
        show(a, picture.tile + picture.tiles, picture.blended, x, y, other);
#pragma unroll
        for (int c = 0; c < 3; c++) v[c] = (1.0f - picture.share) * v[c] + picture.share * other[c];
    }
#pragma unroll
    for (int c = 0; c < 3; c++) a.planar[(image * 3 + c) * plane + at] = v[c];
}
