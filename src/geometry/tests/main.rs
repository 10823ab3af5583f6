//! The camera model beside OpenCV's.

mod camera_opencv;
