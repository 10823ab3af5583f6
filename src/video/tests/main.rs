//! Streams that the program ffmpeg encodes, and pictures that it decodes, where it is installed.

mod damage;
mod decode;
mod support;
