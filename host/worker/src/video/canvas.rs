//! A picture that lines, boxes and texts are drawn into, for people.

use super::encode::{Jpeg, ShownBox, encode, outline, whole_rgb};
use super::font;
use super::picture::Picture;
use super::spec::FrameError;

/// Quality of the JPEG file: texts have sharp edges.
const QUALITY: u8 = 85;

/// Height of a picture for each dot of a letter, in rows: letters of 14 rows in a picture of 576.
const ROWS_PER_DOT: u32 = 270;

/// Behind a text: letters are read on any picture.
const BEHIND_TEXT: [u8; 3] = [16, 16, 16];

/// Red, green and blue, row by row from the upper left.
#[derive(Debug)]
pub struct Canvas {
    pixels: Vec<u8>,
    width: u32,
    height: u32,
    /// Rows and columns of a letter's dot.
    dot: u32,
}

impl Canvas {
    /// A copy of the whole picture.
    pub fn of(picture: &Picture) -> Result<Self, FrameError> {
        let (width, height) = (picture.width(), picture.height());
        let dot = ((height + ROWS_PER_DOT / 2) / ROWS_PER_DOT).max(1);
        Ok(Self { pixels: whole_rgb(picture)?, width, height, dot })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Rows that a line of text takes.
    pub fn text_rows(&self) -> u32 {
        (font::HEIGHT + 4) * self.dot
    }

    /// The picture as a file.
    pub fn jpeg(&self) -> Result<Jpeg, FrameError> {
        encode(&self.pixels, self.size(), QUALITY)
    }

    /// Draws a box's edges, inside of it.
    pub fn outline(&mut self, shown: &ShownBox) {
        outline(&mut self.pixels, (self.width, self.height), shown, 1.0);
    }

    /// Draws a line from one place to another, in pixels. What lies outside is drawn at the edge.
    pub fn line(&mut self, from: (f32, f32), to: (f32, f32), colour: [u8; 3]) {
        let inside = |(x, y): (f32, f32)| {
            let most = (self.width.saturating_sub(1) as f32, self.height.saturating_sub(1) as f32);
            (x.clamp(0.0, most.0), y.clamp(0.0, most.1))
        };
        let ((x, y), (to_x, to_y)) = (inside(from), inside(to));
        let (across, down) = (to_x - x, to_y - y);
        // Each step is a pixel at most, and there are no more of them than the picture is long.
        let steps = across.abs().max(down.abs()).ceil().max(1.0);
        for step in 0..=steps as u32 {
            let part = step as f32 / steps;
            let (x, y) = (x + across * part, y + down * part);
            self.fill((x.round() as u32, y.round() as u32), (self.dot, self.dot), colour);
        }
    }

    /// Writes a line of text whose upper left corner is at this place, moved to where it fits.
    pub fn text(&mut self, (x, y): (i64, i64), text: &str, colour: [u8; 3]) {
        let step = (font::WIDTH + 1) * self.dot;
        let rows = self.text_rows();
        let fit = (self.width / step.max(1)) as usize;
        let letters: Vec<char> = text.chars().take(fit.saturating_sub(1)).collect();
        let wide = letters.len() as u32 * step + 3 * self.dot;
        let place = |at: i64, size: u32, whole: u32| {
            u32::try_from(at).unwrap_or(0).min(whole.saturating_sub(size))
        };
        let (left, top) = (place(x, wide, self.width), place(y, rows, self.height));
        self.fill((left, top), (wide, rows), BEHIND_TEXT);
        for (letter, index) in letters.into_iter().zip(0u32..) {
            let left = left + 2 * self.dot + index * step;
            for (row, down) in font::rows(letter).into_iter().zip(0u32..) {
                let dots = (0..font::WIDTH).filter(|dot| row >> (font::WIDTH - 1 - dot) & 1 == 1);
                for across in dots {
                    let place = (left + across * self.dot, top + (2 + down) * self.dot);
                    self.fill(place, (self.dot, self.dot), colour);
                }
            }
        }
    }

    /// Fills a rectangle as far as it lies inside.
    fn fill(&mut self, (x, y): (u32, u32), (width, height): (u32, u32), colour: [u8; 3]) {
        let right = x.saturating_add(width).min(self.width) as usize * 3;
        let rows = self.pixels.chunks_exact_mut(self.width.max(1) as usize * 3);
        for row in rows.skip(y as usize).take(height as usize) {
            for pixel in row.get_mut(x as usize * 3..right).unwrap_or_default().chunks_exact_mut(3)
            {
                pixel.copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(width: u32, height: u32) -> Canvas {
        let pixels = vec![0; width as usize * height as usize * 3];
        Canvas { pixels, width, height, dot: 1 }
    }

    fn has(canvas: &Canvas, (x, y): (u32, u32), colour: [u8; 3]) -> bool {
        let at = (y as usize * canvas.width as usize + x as usize) * 3;
        canvas.pixels[at..at + 3] == colour
    }

    #[test]
    fn a_line_goes_from_end_to_end_and_stays_inside() {
        let mut canvas = canvas(30, 20);
        let colour = [1, 2, 3];
        canvas.line((2.0, 3.0), (12.0, 3.0), colour);
        assert!((2..=12).all(|x| has(&canvas, (x, 3), colour)) && !has(&canvas, (13, 3), colour));
        canvas.line((-1e9, 19.0), (1e9, 19.0), colour);
        assert!((0..30).all(|x| has(&canvas, (x, 19), colour)));
        canvas.line((f32::NAN, 0.0), (1.0, f32::NAN), colour);
    }

    #[test]
    fn a_text_is_readable_where_it_fits_and_is_moved_where_it_would_not() {
        let mut canvas = canvas(60, 24);
        let colour = [9, 9, 9];
        canvas.text((0, 0), "I", colour);
        // The stem of the letter, two dots from the edges.
        assert!((2..9).all(|y| has(&canvas, (4, y), colour)));
        assert!(has(&canvas, (0, 0), BEHIND_TEXT) && !has(&canvas, (30, 0), BEHIND_TEXT));
        canvas.text((1000, -5), "I", colour);
        assert!((2..9).all(|y| has(&canvas, (60 - 9 + 4, y), colour)));
        canvas.text((0, 1000), &"W".repeat(500), colour);
        assert!(has(&canvas, (0, 23), BEHIND_TEXT));
    }
}
