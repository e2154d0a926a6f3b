//! `ocelli:pipeline@0.1.0` for components that were made for it. Since then `frame.skipped` and
//! `boxes` have been added.

/// The interfaces that have changed since; the others are the newest version's.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi": crate::guest::newest::wasi,
            "ocelli:pipeline/results": crate::guest::newest::results,
            "ocelli:pipeline/frames.frame": crate::guest::resources::FrameHandle,
            "ocelli:pipeline/frames.image": crate::guest::resources::Image,
        },
    });
}

pub use bindings::ocelli::pipeline::frames;
pub use bindings::{CameraPipeline, CameraPipelinePre};

use wasmtime::component::Resource;

use self::bindings::exports::ocelli::pipeline::pipeline as exported;
use crate::guest::HostResult;
use crate::guest::frames::FramesView;
use crate::guest::newest;
use crate::guest::resources::{FrameHandle, Image};
use crate::guest::tensor::Tensor;

impl frames::Host for FramesView<'_> {}

impl frames::HostImage for FramesView<'_> {
    fn width(&mut self, image: Resource<Image>) -> wasmtime::Result<u32> {
        newest::frames::HostImage::width(self, image)
    }

    fn height(&mut self, image: Resource<Image>) -> wasmtime::Result<u32> {
        newest::frames::HostImage::height(self, image)
    }

    fn size(&mut self, image: Resource<Image>) -> wasmtime::Result<u64> {
        newest::frames::HostImage::size(self, image)
    }

    fn drop(&mut self, image: Resource<Image>) -> wasmtime::Result<()> {
        newest::frames::HostImage::drop(self, image)
    }
}

impl frames::HostFrame for FramesView<'_> {
    fn index(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        newest::frames::HostFrame::index(self, frame)
    }

    fn capture_time(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        newest::frames::HostFrame::capture_time(self, frame)
    }

    fn presentation_time(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        newest::frames::HostFrame::presentation_time(self, frame)
    }

    fn width(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u32> {
        newest::frames::HostFrame::width(self, frame)
    }

    fn height(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u32> {
        newest::frames::HostFrame::height(self, frame)
    }

    fn tensor(
        &mut self,
        frame: Resource<FrameHandle>,
        region: Option<frames::Rect>,
        spec: frames::TensorSpec,
    ) -> HostResult<(Resource<Tensor>, frames::Placement), frames::FrameError> {
        let made =
            newest::frames::HostFrame::tensor(self, frame, region.map(Into::into), spec.into())?;
        Ok(made.map(|(tensor, placed)| (tensor, placed.into())).map_err(Into::into))
    }

    fn tensors(
        &mut self,
        frame: Resource<FrameHandle>,
        regions: Vec<frames::Rect>,
        spec: frames::TensorSpec,
    ) -> HostResult<(Resource<Tensor>, Vec<frames::Placement>), frames::FrameError> {
        let regions = regions.into_iter().map(Into::into).collect();
        let made = newest::frames::HostFrame::tensors(self, frame, regions, spec.into())?;
        let placed =
            |(tensor, placed): (_, Vec<_>)| (tensor, placed.into_iter().map(Into::into).collect());
        Ok(made.map(placed).map_err(Into::into))
    }

    fn warp(
        &mut self,
        frame: Resource<FrameHandle>,
        to_frame: frames::Affine,
        spec: frames::TensorSpec,
    ) -> HostResult<Resource<Tensor>, frames::FrameError> {
        let frames::Affine { a, b, c, d, e, f } = to_frame;
        let to_frame = newest::frames::Affine { a, b, c, d, e, f };
        Ok(newest::frames::HostFrame::warp(self, frame, to_frame, spec.into())?.map_err(Into::into))
    }

    fn luma(
        &mut self,
        frame: Resource<FrameHandle>,
        width: u32,
        height: u32,
    ) -> HostResult<Vec<u8>, frames::FrameError> {
        Ok(newest::frames::HostFrame::luma(self, frame, width, height)?.map_err(Into::into))
    }

    fn image(
        &mut self,
        frame: Resource<FrameHandle>,
        region: Option<frames::Rect>,
        quality: u8,
    ) -> HostResult<Resource<Image>, frames::FrameError> {
        let made = newest::frames::HostFrame::image(self, frame, region.map(Into::into), quality)?;
        Ok(made.map_err(Into::into))
    }

    fn drop(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<()> {
        newest::frames::HostFrame::drop(self, frame)
    }
}

impl From<frames::Rect> for newest::frames::Rect {
    fn from(frames::Rect { x, y, width, height }: frames::Rect) -> Self {
        Self { x, y, width, height }
    }
}

impl From<frames::TensorSpec> for newest::frames::TensorSpec {
    fn from(spec: frames::TensorSpec) -> Self {
        use newest::frames as new;
        let frames::TensorSpec { width, height, fit, channels, layout, element, fill, mean, std } =
            spec;
        let fit = match fit {
            frames::Fit::Letterbox => new::Fit::Letterbox,
            frames::Fit::Stretch => new::Fit::Stretch,
        };
        let channels = match channels {
            frames::Channels::Rgb => new::Channels::Rgb,
            frames::Channels::Bgr => new::Channels::Bgr,
        };
        let layout = match layout {
            frames::Layout::Nchw => new::Layout::Nchw,
            frames::Layout::Nhwc => new::Layout::Nhwc,
        };
        let element = match element {
            frames::Element::F32 => new::Element::F32,
            frames::Element::U8 => new::Element::U8,
        };
        Self { width, height, fit, channels, layout, element, fill, mean, std }
    }
}

impl From<newest::frames::Placement> for frames::Placement {
    fn from(placed: newest::frames::Placement) -> Self {
        let newest::frames::Placement { scale_x, scale_y, offset_x, offset_y } = placed;
        Self { scale_x, scale_y, offset_x, offset_y }
    }
}

impl From<newest::frames::FrameError> for frames::FrameError {
    fn from(error: newest::frames::FrameError) -> Self {
        match error {
            newest::frames::FrameError::InvalidRegion(message) => Self::InvalidRegion(message),
            newest::frames::FrameError::InvalidSpec(message) => Self::InvalidSpec(message),
            newest::frames::FrameError::OutOfMemory(message) => Self::OutOfMemory(message),
        }
    }
}

impl From<exported::Description> for newest::exported::Description {
    fn from(description: exported::Description) -> Self {
        let exported::Description { name, version, models, settings_schema } = description;
        let need = |need: exported::ModelNeed| newest::exported::ModelNeed {
            name: need.name,
            inputs: need.inputs,
        };
        Self { name, version, models: models.into_iter().map(need).collect(), settings_schema }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::{TestInstance, frame, state};

    /// What a component reads of a tensor, or the error's message.
    fn read<T: std::fmt::Debug, E: std::fmt::Debug>(
        state: &mut TestInstance,
        made: wasmtime::Result<Result<(Resource<Tensor>, T), E>>,
    ) -> Result<(Vec<u32>, Vec<u8>, String), String> {
        let (tensor, placed) = made.unwrap().map_err(|error| format!("{error:?}"))?;
        let read = state.table_mut().delete(tensor).unwrap();
        Ok((read.shape().to_vec(), read.bytes().to_vec(), format!("{placed:?}")))
    }

    fn spec(number: u32) -> frames::TensorSpec {
        let bit = |bit: u32| number & (1 << bit) != 0;
        frames::TensorSpec {
            width: 24,
            // A size of 0 brings an error.
            height: if bit(4) { 0 } else { 16 },
            fit: if bit(0) { frames::Fit::Letterbox } else { frames::Fit::Stretch },
            channels: if bit(1) { frames::Channels::Rgb } else { frames::Channels::Bgr },
            layout: if bit(2) { frames::Layout::Nchw } else { frames::Layout::Nhwc },
            element: if bit(3) { frames::Element::F32 } else { frames::Element::U8 },
            fill: (1.0, 2.0, 3.0),
            mean: (4.0, 5.0, 6.0),
            std: (7.0, 8.0, 9.0),
        }
    }

    #[test]
    fn an_older_component_gets_what_a_new_one_gets() {
        let mut state = state();
        let state = &mut state;
        let frame = frame(state);
        let borrowed = || Resource::new_borrow(frame.rep());
        let old = frames::Rect { x: 100.0, y: 50.0, width: 300.0, height: 200.0 };
        let new = newest::frames::Rect { x: 100.0, y: 50.0, width: 300.0, height: 200.0 };
        let mut errors = 0;
        for number in 0..32 {
            for region in [false, true] {
                let made = frames::HostFrame::tensor(
                    &mut state.frames(),
                    borrowed(),
                    region.then_some(old),
                    spec(number),
                );
                let ours = read(state, made);
                let (region, spec) = (region.then_some(new), spec(number).into());
                let made = newest::frames::HostFrame::tensor(
                    &mut state.frames(),
                    borrowed(),
                    region,
                    spec,
                );
                assert_eq!(ours, read(state, made));
                errors += u32::from(ours.is_err());
            }
            let made = frames::HostFrame::tensors(
                &mut state.frames(),
                borrowed(),
                vec![old, old],
                spec(number),
            );
            let ours = read(state, made);
            let made = newest::frames::HostFrame::tensors(
                &mut state.frames(),
                borrowed(),
                vec![new, new],
                spec(number).into(),
            );
            assert_eq!(ours, read(state, made));
        }
        assert_eq!(errors, 32);

        let (a, b, c, d, e, f) = (2.0, 0.5, 10.0, -0.5, 2.0, 20.0);
        let to_frame = frames::Affine { a, b, c, d, e, f };
        let made = frames::HostFrame::warp(&mut state.frames(), borrowed(), to_frame, spec(15));
        let ours = read(state, made.map(|made| made.map(|tensor| (tensor, ()))));
        let to_frame = newest::frames::Affine { a, b, c, d, e, f };
        let made = newest::frames::HostFrame::warp(
            &mut state.frames(),
            borrowed(),
            to_frame,
            spec(15).into(),
        );
        assert_eq!(ours, read(state, made.map(|made| made.map(|tensor| (tensor, ())))));
        assert!(ours.is_ok());
    }

    #[test]
    fn an_older_component_asks_the_same_frame_and_pictures() {
        let mut state = state();
        let state = &mut state;
        let frame = frame(state);
        let borrowed = || Resource::new_borrow(frame.rep());
        assert_eq!(frames::HostFrame::width(&mut state.frames(), borrowed()).unwrap(), 768);
        assert_eq!(frames::HostFrame::height(&mut state.frames(), borrowed()).unwrap(), 576);
        assert_eq!(
            frames::HostFrame::index(&mut state.frames(), borrowed()).unwrap(),
            newest::frames::HostFrame::index(&mut state.frames(), borrowed()).unwrap()
        );
        let luma =
            frames::HostFrame::luma(&mut state.frames(), borrowed(), 32, 24).unwrap().unwrap();
        assert_eq!(
            luma,
            newest::frames::HostFrame::luma(&mut state.frames(), borrowed(), 32, 24)
                .unwrap()
                .unwrap()
        );
        let refused =
            frames::HostFrame::luma(&mut state.frames(), borrowed(), 0, 24).unwrap().unwrap_err();
        assert!(matches!(refused, frames::FrameError::InvalidSpec(_)), "{refused:?}");
        let image =
            frames::HostFrame::image(&mut state.frames(), borrowed(), None, 80).unwrap().unwrap();
        let borrowed = || Resource::new_borrow(image.rep());
        assert_eq!(frames::HostImage::width(&mut state.frames(), borrowed()).unwrap(), 768);
        assert_eq!(frames::HostImage::height(&mut state.frames(), borrowed()).unwrap(), 576);
        let size = state.table_mut().get(&image).unwrap().jpeg.len() as u64;
        assert_eq!(frames::HostImage::size(&mut state.frames(), borrowed()).unwrap(), size);
        frames::HostImage::drop(&mut state.frames(), image).unwrap();
        frames::HostFrame::drop(&mut state.frames(), frame).unwrap();
    }
}
