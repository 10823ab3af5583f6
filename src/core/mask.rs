//! The semantic segmentation of an image.

/// A class for each cell of a grid that covers the source image exactly, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassMask {
    /// Cells; 0 where there is no segmentation.
    pub width: usize,
    /// Cells.
    pub height: usize,
    /// Indices into the segmentation classes of the student's architecture, `width · height` of
    /// them.
    pub classes: Vec<u8>,
}

impl ClassMask {
    /// The class at a pixel of a source image of `size` (width, height); `None` outside it or
    /// without segmentation.
    pub fn at(&self, x: usize, y: usize, size: (usize, usize)) -> Option<u8> {
        self.cell(x, y, size).and_then(|cell| self.classes.get(cell)).copied()
    }

    /// Index in [`classes`](Self::classes) of the cell over a pixel of a source image of `size`;
    /// `None` outside it.
    pub fn cell(&self, x: usize, y: usize, size: (usize, usize)) -> Option<usize> {
        if x >= size.0 || y >= size.1 {
            return None;
        }
        let (column, row) = (x * self.width / size.0, y * self.height / size.1);
        Some(row * self.width + column)
    }
}
