//! What tensors, warps and luma pictures promise, on painted pictures.

use super::super::orientation::coded_place;
use super::super::picture::Matrix;
use super::super::spec::{Affine, Channels, Element, Fit, Layout};
use super::super::warp::warp;
use super::*;

fn spec(width: u32, height: u32) -> TensorSpec {
    TensorSpec {
        width,
        height,
        fit: Fit::Stretch,
        channels: Channels::Rgb,
        layout: Layout::Nhwc,
        element: Element::U8,
        fill: [10.0, 20.0, 30.0],
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
    Rect { x, y, width, height }
}

fn bytes(picture: &Picture, region: Option<Rect>, spec: &TensorSpec) -> (Vec<u8>, Placement) {
    let mut out = vec![99; spec.bytes()];
    let placement = Resampler::new().tensor(picture, region, spec, &mut out).unwrap();
    (out, placement)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&element| f32::from_ne_bytes(element)).collect()
}

/// Smooth, with every sample different from its neighbours, and colourful.
fn gradient(width: u32, height: u32) -> Picture {
    Picture::painted((width, height), (1, 1), Matrix::Bt601, false, |plane, x, y| match plane {
        0 => (40 + x + y / 2).min(230) as u8,
        1 => (90 + x).min(200) as u8,
        _ => (180_u32.saturating_sub(y)).max(40) as u8,
    })
}

/// The colour of a sample by the formulas of BT.601, BT.709 and BT.2020, in double precision.
fn colour((y, u, v): (u8, u8, u8), matrix: Matrix, full: bool) -> [f64; 3] {
    let (kr, kb) = match matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt2020 => (0.2627, 0.0593),
    };
    let (mut y, mut u, mut v) = (f64::from(y), f64::from(u) - 128.0, f64::from(v) - 128.0);
    if !full {
        (y, u, v) = ((y - 16.0) * 255.0 / 219.0, u * 255.0 / 224.0, v * 255.0 / 224.0);
    }
    let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
    [r, (y - kr * r - kb * b) / (1.0 - kr - kb), b].map(|value| value.clamp(0.0, 255.0))
}

#[test]
fn a_flat_colour_is_that_colour() {
    for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
        for full in [false, true] {
            for (y, u, v) in [
                (126, 128, 128),
                (16, 128, 128),
                (235, 128, 128),
                (81, 90, 240),
                (145, 54, 34),
                (41, 240, 110),
                (250, 3, 250),
            ] {
                for shift in [(1, 1), (1, 0), (0, 0), (0, 1)] {
                    let picture = Picture::painted((37, 23), shift, matrix, full, |plane, _, _| {
                        [y, u, v][plane]
                    });
                    let (out, _) = bytes(&picture, None, &spec(16, 16));
                    let expected = colour((y, u, v), matrix, full);
                    for pixel in out.as_chunks::<3>().0 {
                        for (found, expected) in pixel.iter().zip(expected) {
                            assert!(
                                (f64::from(*found) - expected).abs() <= 1.0,
                                "{matrix:?} {full} {y} {u} {v}: {pixel:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn middle_grey_is_middle_grey() {
    let picture = Picture::painted((64, 64), (1, 1), Matrix::Bt709, true, |_, _, _| 128);
    assert!(bytes(&picture, None, &spec(20, 20)).0.iter().all(|&value| value == 128));
}

#[test]
fn a_letterbox_is_centred_and_its_rest_is_the_fill_exactly() {
    let picture = Picture::painted((64, 32), (1, 1), Matrix::Bt601, true, |plane, _, _| {
        [200, 128, 128][plane]
    });
    let letterbox = TensorSpec { fit: Fit::Letterbox, ..spec(40, 41) };
    let (out, placement) = bytes(&picture, None, &letterbox);
    let rows: Vec<&[u8]> = out.chunks_exact(40 * 3).collect();
    // 40 x 20 pixels with 21 rows left over: 10 above, 11 below.
    for (y, row) in rows.iter().enumerate() {
        let expected = if (10..30).contains(&y) { [200, 200, 200] } else { [10, 20, 30] };
        assert!(row.as_chunks().0.iter().all(|pixel| *pixel == expected), "row {y}");
    }
    assert_eq!(
        placement,
        Placement { scale_x: 0.625, scale_y: 0.625, offset_x: 0.0, offset_y: 10.0 }
    );

    let normalised = TensorSpec {
        element: Element::F32,
        layout: Layout::Nchw,
        width: 41,
        height: 20,
        mean: [10.0, 10.0, 50.0],
        std: [2.0, 4.0, 10.0],
        ..letterbox
    };
    let (out, placement) = bytes(&picture, None, &normalised);
    assert_eq!((placement.offset_x, placement.offset_y), (0.0, 0.0));
    for (plane, (fill, inside)) in
        floats(&out).chunks_exact(41 * 20).zip([(0.0, 95.0), (2.5, 47.5), (-2.0, 15.0)])
    {
        for row in plane.chunks_exact(41) {
            assert!(row[..40].iter().all(|&value| value == inside) && row[40] == fill, "{row:?}");
        }
    }
}

#[test]
fn a_placement_maps_the_frame_to_the_tensor() {
    let picture = gradient(64, 48);
    let letterbox = TensorSpec { fit: Fit::Letterbox, ..spec(32, 32) };
    let (_, placed) = bytes(&picture, Some(rect(10.0, 8.0, 32.0, 16.0)), &letterbox);
    // The region's corners land on the picture's corners: 32 x 16, eight rows from the top.
    let map = |x: f32, y: f32| {
        (x * placed.scale_x + placed.offset_x, y * placed.scale_y + placed.offset_y)
    };
    assert_eq!((map(10.0, 8.0), map(42.0, 24.0)), ((0.0, 8.0), (32.0, 24.0)));
    // What reaches beyond the frame is cut off.
    let (_, placed) = bytes(&picture, Some(rect(-16.0, -100.0, 48.0, 132.0)), &spec(32, 32));
    assert_eq!(
        (placed.scale_x, placed.scale_y, placed.offset_x, placed.offset_y),
        (1.0, 1.0, 0.0, 0.0)
    );
}

#[test]
fn element_types_layouts_and_channel_orders_agree() {
    let picture = gradient(97, 55);
    let base = TensorSpec { fit: Fit::Letterbox, fill: [7.0; 3], ..spec(30, 24) };
    let (reference, _) = bytes(&picture, None, &base);
    let pixel = |x: usize, y: usize, channel: usize| reference[(y * 30 + x) * 3 + channel];
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for channels in [Channels::Rgb, Channels::Bgr] {
            for element in [Element::F32, Element::U8] {
                let (mean, std) = ([1.0, 2.0, 3.0], [2.0, 4.0, 8.0]);
                let (out, _) = bytes(
                    &picture,
                    None,
                    &TensorSpec { layout, channels, element, mean, std, ..base },
                );
                let values = if element == Element::F32 {
                    floats(&out)
                } else {
                    out.into_iter().map(f32::from).collect()
                };
                for (at, value) in values.into_iter().enumerate() {
                    let (channel, x, y) = match layout {
                        Layout::Nchw => (at / (30 * 24), at % 30, at / 30 % 24),
                        Layout::Nhwc => (at % 3, at / 3 % 30, at / 90),
                    };
                    let colour = if channels == Channels::Rgb { channel } else { 2 - channel };
                    let plain = f32::from(pixel(x, y, colour));
                    let expected = match element {
                        Element::F32 => (plain - mean[channel]) / std[channel],
                        Element::U8 => plain,
                    };
                    assert_eq!(value, expected, "{layout:?} {channels:?} {element:?} {x} {y}");
                }
            }
        }
    }
}

#[test]
fn deeper_samples_are_reduced_to_8_bits() {
    let regions = [None, Some(rect(3.5, 2.0, 60.0, 40.0)), Some(rect(90.0, 50.0, 50.0, 50.0))];
    for depth in [10, 12] {
        for region in regions {
            let expected = bytes(&gradient(97, 55), region, &spec(40, 30));
            assert_eq!(
                bytes(&gradient(97, 55).deeper(depth), region, &spec(40, 30)),
                expected,
                "{depth} {region:?}"
            );
        }
        let mut resampler = Resampler::new();
        let luma = resampler.luma(&gradient(97, 55).deeper(depth), 20, 10);
        assert_eq!(luma, resampler.luma(&gradient(97, 55), 20, 10));
        let size = spec(30, 30);
        let turned = Affine { a: 1.2, b: 0.4, c: 5.0, d: -0.4, e: 1.2, f: 9.0 };
        let [deep, plain] = [gradient(97, 55).deeper(depth), gradient(97, 55)].map(|picture| {
            let mut out = vec![0; size.bytes()];
            warp(&picture, &turned, &size, &mut out).unwrap();
            out
        });
        assert_eq!(deep, plain);
    }
}

#[test]
fn a_region_shows_what_the_whole_shows_there() {
    let picture = gradient(64, 48);
    let (whole, _) = bytes(&picture, None, &spec(128, 96));
    for (x, y, width, height) in [(0, 0, 16, 16), (17, 9, 20, 30), (40, 24, 24, 24)] {
        let region = rect(x as f32, y as f32, width as f32, height as f32);
        let (part, _) = bytes(&picture, Some(region), &spec(2 * width, 2 * height));
        for row in 0..2 * height as usize {
            let start = ((2 * y as usize + row) * 128 + 2 * x as usize) * 3;
            let length = 2 * width as usize * 3;
            let pairs = whole[start..start + length].iter().zip(&part[row * length..]);
            assert!(pairs.clone().all(|(a, b)| a.abs_diff(*b) <= 1), "{region:?} row {row}");
        }
    }
    let regions = [rect(0.0, 0.0, 16.0, 16.0), rect(30.5, 20.25, 10.0, 12.0)];
    let small = spec(12, 12);
    let mut batch = vec![0; 2 * small.bytes()];
    let placements = Resampler::new().tensors(&picture, &regions, &small, &mut batch).unwrap();
    for ((region, part), placement) in
        regions.iter().zip(batch.chunks_exact(small.bytes())).zip(placements)
    {
        assert_eq!((part.to_vec(), placement), bytes(&picture, Some(*region), &small));
    }
}

#[test]
fn chroma_lies_where_the_picture_says() {
    // The left half is blue, the right half red, with the edge on a luma column that chroma is
    // sited at.
    let edge = |_: usize, x: u32, values: (u8, u8)| if x < 16 { values.0 } else { values.1 };
    let picture =
        Picture::painted((64, 8), (1, 1), Matrix::Bt601, true, |plane, x, _| match plane {
            0 => 100,
            1 => edge(plane, x, (200, 100)),
            _ => edge(plane, x, (100, 200)),
        });
    let (out, _) = bytes(&picture, None, &spec(64, 8));
    let red: Vec<u8> = out[..64 * 3].as_chunks::<3>().0.iter().map(|pixel| pixel[0]).collect();
    // Left-sited: column 30 has the last sample of one side itself, column 32 the first of the
    // other, 31 their mean.
    let [low, mean, high] = [100, 200]
        .map(|v| 100.0 + 1.402 * (f64::from(v) - 128.0))
        .into_iter()
        .fold([0.0; 3], |[low, sum, _], value| {
            [if low == 0.0 { value } else { low }, sum + value / 2.0, value]
        });
    for (column, expected) in [(30, low), (31, mean), (32, high)] {
        assert!(
            (f64::from(red[column]) - expected).abs() <= 1.0,
            "column {column}: {} {expected}",
            red[column]
        );
    }
}

#[test]
fn a_warp_by_the_identity_is_a_stretch() {
    let picture = gradient(64, 48);
    let stretch = spec(64, 48);
    let (expected, _) = bytes(&picture, None, &stretch);
    let mut out = vec![0; stretch.bytes()];
    let identity = Affine { a: 1.0, b: 0.0, c: 0.0, d: 0.0, e: 1.0, f: 0.0 };
    warp(&picture, &identity, &stretch, &mut out).unwrap();
    let worst = expected.iter().zip(&out).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "{worst:?}");

    // Moved by a quarter of the frame: the rest is fill.
    warp(&picture, &Affine { c: -16.0, ..identity }, &stretch, &mut out).unwrap();
    for row in out.chunks_exact(64 * 3) {
        assert!(row[..48].as_chunks().0.iter().all(|pixel| *pixel == [10, 20, 30]));
        assert!(row[48..51] != [10, 20, 30]);
    }
    let not_finite = Affine { a: f32::NAN, ..identity };
    assert!(matches!(
        warp(&picture, &not_finite, &stretch, &mut out),
        Err(FrameError::InvalidRegion(_))
    ));
}

#[test]
fn a_warp_turns_the_picture() {
    let picture = gradient(40, 40);
    let size = spec(40, 40);
    let (upright, _) = bytes(&picture, None, &size);
    let mut out = vec![0; size.bytes()];
    // A quarter turn: tensor (x, y) shows frame (y, 40 - x).
    warp(&picture, &Affine { a: 0.0, b: 1.0, c: 0.0, d: -1.0, e: 0.0, f: 40.0 }, &size, &mut out)
        .unwrap();
    for (x, y) in [(3, 5), (20, 20), (31, 8)] {
        let (found, expected) = ((y * 40 + x) * 3, ((39 - x) * 40 + y) * 3);
        let pairs = out[found..found + 3].iter().zip(&upright[expected..expected + 3]);
        assert!(pairs.clone().all(|(a, b)| a.abs_diff(*b) <= 1), "{x} {y}");
    }
}

#[test]
fn luma_is_full_range_and_as_large_as_asked() {
    let picture =
        Picture::painted((33, 21), (1, 1), Matrix::Bt601, false, |plane, x, _| match plane {
            0 if x < 16 => 16,
            0 => 235,
            _ => 60,
        });
    let grey = Resampler::new().luma(&picture, 11, 7).unwrap();
    assert_eq!((grey.len(), grey[0], grey[10]), (77, 0, 255));
    for (width, height) in [(0, 7), (11, 0), (641, 7), (7, u32::MAX)] {
        assert!(matches!(
            Resampler::new().luma(&picture, width, height),
            Err(FrameError::InvalidSize(_))
        ));
    }
}

#[test]
fn regions_without_pixels_are_refused() {
    let picture = gradient(64, 48);
    let small = spec(8, 8);
    let mut out = vec![0; small.bytes()];
    let nan = f32::NAN;
    let refused = [
        rect(0.0, 0.0, 0.0, 10.0),
        rect(0.0, 0.0, 10.0, -1.0),
        rect(64.0, 0.0, 10.0, 10.0),
        rect(-10.0, 0.0, 10.0, 10.0),
        rect(0.0, 48.0, 10.0, 10.0),
        rect(nan, 0.0, 1.0, 1.0),
        rect(0.0, 0.0, f32::INFINITY, 1.0),
    ];
    for region in refused {
        let result = Resampler::new().tensor(&picture, Some(region), &small, &mut out);
        assert!(matches!(result, Err(FrameError::InvalidRegion(_))), "{region:?}");
    }
    for region in [
        rect(63.9, 47.9, 50.0, 50.0),
        rect(1e-6, 0.0, 1e-6, 1e-6),
        rect(0.0, 0.0, f32::MAX, 3.0),
        rect(63.0, 0.0, 1.0, 48.0),
    ] {
        Resampler::new().tensor(&picture, Some(region), &small, &mut out).unwrap();
    }
}

#[test]
fn specs_that_cannot_be_served_are_refused() {
    let picture = gradient(64, 48);
    let good = spec(8, 8);
    let bad = [
        TensorSpec { width: 0, ..good },
        TensorSpec { height: MAX + 1, ..good },
        TensorSpec { width: u32::MAX, height: u32::MAX, ..good },
        TensorSpec { std: [1.0, 0.0, 1.0], ..good },
        TensorSpec { mean: [f32::NAN; 3], ..good },
        TensorSpec { fill: [f32::INFINITY; 3], ..good },
    ];
    for spec in bad {
        let result = Resampler::new().tensor(&picture, None, &spec, &mut [0; 8 * 8 * 3]);
        let size = [spec.width, spec.height].iter().any(|side| !(1..=MAX).contains(side));
        let expected = if size { "size" } else { "spec" };
        assert!(
            result.unwrap_err().to_string().starts_with(&format!("invalid {expected}: ")),
            "{spec:?}"
        );
    }
    let wrong_size = Resampler::new().tensor(&picture, None, &good, &mut [0; 8 * 8 * 3 - 1]);
    assert!(matches!(wrong_size, Err(FrameError::InvalidSpec(_))));
}

const MAX: u32 = super::super::spec::MAX_SIDE;

#[test]
fn a_large_tensor_does_not_keep_its_memory() {
    let picture = gradient(64, 48);
    let mut resampler = Resampler::new();
    let large = spec(1500, 1500);
    resampler.tensor(&picture, None, &large, &mut vec![0; large.bytes()]).unwrap();
    let kept = resampler.luma.capacity() + resampler.chroma.capacity();
    assert!(kept <= 2 * KEPT_SAMPLES);
}

#[test]
fn a_batch_of_crops_is_each_crop_by_itself_also_at_the_edges() {
    let picture = gradient(64, 48);
    let crop = TensorSpec {
        fit: Fit::Letterbox,
        layout: Layout::Nchw,
        element: Element::F32,
        ..spec(12, 10)
    };
    // Over all four edges and beyond.
    let regions: Vec<_> = (0..64)
        .map(|n| rect((n % 8) as f32 * 9.5 - 8.0, (n / 8) as f32 * 7.25 - 6.0, 11.0, 9.0))
        .collect();
    let mut resampler = Resampler::new();
    for count in [1, 2, 16, 64] {
        let mut batch = vec![0; count * crop.bytes()];
        let placements = resampler.tensors(&picture, &regions[..count], &crop, &mut batch).unwrap();
        assert_eq!(placements.len(), count);
        for ((region, part), placement) in
            regions.iter().zip(batch.chunks_exact(crop.bytes())).zip(placements)
        {
            assert_eq!(
                (part.to_vec(), placement),
                bytes(&picture, Some(*region), &crop),
                "{region:?}"
            );
        }
    }
}

#[test]
fn five_points_come_to_lie_where_a_warp_puts_them() {
    // Eyes, nose and corners of the mouth in a tensor of 112 x 112, as models of faces want them.
    let wanted = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)];
    // A face half as large again, leaning by 20 degrees.
    let (sin, cos) = 20_f32.to_radians().sin_cos();
    let to_frame =
        Affine { a: 1.5 * cos, b: -1.5 * sin, c: 90.0, d: 1.5 * sin, e: 1.5 * cos, f: 20.0 };
    let points = wanted.map(|(x, y): (f32, f32)| {
        let Affine { a, b, c, d, e, f } = to_frame;
        (a * x + b * y + c, d * x + e * y + f)
    });
    let picture = Picture::painted((320, 240), (1, 1), Matrix::Bt601, true, |plane, x, y| {
        let near = |&(px, py): &(f32, f32)| (px - x as f32 - 0.5).hypot(py - y as f32 - 0.5) < 4.0;
        if plane > 0 {
            128
        } else if points.iter().any(near) {
            255
        } else {
            0
        }
    });
    let face = spec(112, 112);
    let mut out = vec![0; face.bytes()];
    warp(&picture, &to_frame, &face, &mut out).unwrap();
    let at = |x: f32, y: f32| out[(y as usize * 112 + x as usize) * 3];
    for (x, y) in wanted {
        assert_eq!(at(x, y), 255, "({x}, {y})");
        for (dx, dy) in [(6.0, 0.0), (-6.0, 0.0), (0.0, 6.0), (0.0, -6.0)] {
            assert_eq!(at(x + dx, y + dy), 0, "beside ({x}, {y})");
        }
    }
}

#[test]
fn a_picture_shown_turned_is_the_coded_one_turned() {
    const ALL: [Orientation; 8] = [
        Orientation::Upright,
        Orientation::MirrorAcross,
        Orientation::HalfTurn,
        Orientation::MirrorDown,
        Orientation::Transpose,
        Orientation::TurnRight,
        Orientation::Transverse,
        Orientation::TurnLeft,
    ];
    let near = |a: &[u8], b: &[u8]| a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1);
    for orientation in ALL {
        for depth in [8, 10] {
            // Odd sides: the last chroma samples reach beyond the picture.
            let picture = || match depth {
                8 => gradient(61, 35),
                _ => gradient(61, 35).deeper(depth),
            };
            let (coded, shown) = (picture(), picture().oriented(orientation));
            assert_eq!((shown.width(), shown.height()), orientation.shown((61, 35)));
            let back = match orientation {
                Orientation::TurnRight => Orientation::TurnLeft,
                Orientation::TurnLeft => Orientation::TurnRight,
                own_inverse => own_inverse,
            };
            let size = (f64::from(shown.width()), f64::from(shown.height()));
            let shown_place = |x, y| coded_place(back, (f64::from(x), f64::from(y)), size);
            for part in [None, Some(rect(4.5, 3.0, 20.0, 18.25)), Some(rect(40.0, 9.5, 21.0, 25.5))]
            {
                let shown_part = part.map(|part| {
                    let (left, top) = shown_place(part.x, part.y);
                    let (right, bottom) = shown_place(part.x + part.width, part.y + part.height);
                    let (width, height) = ((left - right).abs(), (top - bottom).abs());
                    rect(
                        left.min(right) as f32,
                        top.min(bottom) as f32,
                        width as f32,
                        height as f32,
                    )
                });
                let (width, height) = orientation.shown((30, 24));
                let (found, placed) = bytes(&shown, shown_part, &spec(width, height));
                let (pixels, _) = bytes(&coded, part, &spec(30, 24));
                let mut expected = Vec::new();
                turn(orientation, pixels.as_chunks::<3>().0, 30, &mut expected);
                let what = format!("{orientation:?} {depth} {part:?}");
                assert!(near(&found, expected.as_flattened()), "{what}");
                let corner = shown_part.unwrap_or(rect(0.0, 0.0, size.0 as f32, size.1 as f32));
                let right = (corner.x + corner.width) * placed.scale_x + placed.offset_x;
                assert!((right - width as f32).abs() < 1e-3, "{what}: {placed:?}");
            }
            let (width, height) = orientation.shown((20, 15));
            let luma = Resampler::new().luma(&shown, width, height).unwrap();
            let mut expected = Vec::new();
            turn(orientation, &Resampler::new().luma(&coded, 20, 15).unwrap(), 20, &mut expected);
            assert!(near(&luma, &expected), "{orientation:?} {depth}: luma");

            let stretch = spec(shown.width(), shown.height());
            let mut warped = vec![0; stretch.bytes()];
            let identity = Affine { a: 1.0, b: 0.0, c: 0.0, d: 0.0, e: 1.0, f: 0.0 };
            warp(&shown, &identity, &stretch, &mut warped).unwrap();
            assert!(near(&warped, &bytes(&shown, None, &stretch).0), "{orientation:?}: warp");
        }
    }
}
