//! `frames`: a component's access to a picture. Pixels go straight into shared memory.

use std::sync::Arc;

use ocelli_protocol::inference::Element;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::Rect;
use wasmtime::component::{HasData, Resource, ResourceTable};

use super::HostResult;
use super::limits::Limiter;
use super::newest::frames::{self as wit, FrameError};
use super::output::rect;
use super::resources::{FrameHandle, Image, ImageBudget};
use super::tensor::Tensor;
use crate::arena::Arena;
use crate::video;

/// Most regions of one batch. More objects than that in one frame are cheaper in two batches than
/// one allocation.
const MAX_REGIONS: usize = 64;

/// Most points of one call: 25 for each of 40 tracks, which take about 3 ms.
const MAX_POINTS: usize = 1024;

/// The part of an instance's state behind `frames`.
pub(super) struct FramesState {
    arena: Arc<Arena>,
    resampler: video::Resampler,
    watch: video::Watch,
    images: ImageBudget,
}

impl FramesState {
    /// `arena` is where tensors lie.
    pub(super) fn new(arena: Arc<Arena>) -> Self {
        Self {
            arena,
            resampler: video::Resampler::new(),
            watch: video::Watch::default(),
            images: ImageBudget::default(),
        }
    }

    /// The next calls are about another frame.
    pub(super) fn begin_frame(&mut self) {
        self.watch.next();
    }

    pub(super) fn view<'a>(
        &'a mut self,
        table: &'a mut ResourceTable,
        limiter: &'a mut Limiter,
    ) -> FramesView<'a> {
        let Self { arena, resampler, watch, images } = self;
        FramesView { arena, resampler, watch, images, table, limiter }
    }
}

/// The view of `frames`: the only state that its functions reach.
pub(super) struct FramesView<'a> {
    arena: &'a Arc<Arena>,
    resampler: &'a mut video::Resampler,
    watch: &'a mut video::Watch,
    images: &'a ImageBudget,
    table: &'a mut ResourceTable,
    limiter: &'a mut Limiter,
}

/// Links the functions of `frames` to [`FramesView`].
pub(super) struct Frames;

impl HasData for Frames {
    type Data<'a> = FramesView<'a>;
}

impl FramesView<'_> {
    /// Allocates a tensor for `count` pictures and lets `write` fill it.
    fn tensor_of<T>(
        &mut self,
        frame: &Resource<FrameHandle>,
        spec: wit::TensorSpec,
        count: usize,
        write: impl FnOnce(
            &mut video::Resampler,
            &video::Picture,
            &video::TensorSpec,
            &mut [u8],
        ) -> Result<T, video::FrameError>,
    ) -> HostResult<(Resource<Tensor>, T), FrameError> {
        let frame = Arc::clone(&self.table.get(frame)?.frame);
        let spec = tensor_spec(spec);
        if let Err(error) = spec.check() {
            return Ok(Err(self.frame_error(error)));
        }
        let Some((shape, bytes)) = shape(&spec, count) else {
            let message =
                format!("{count} tensors of {} x {}: more than there is", spec.width, spec.height);
            return Ok(Err(self.frame_error(video::FrameError::InvalidSize(message))));
        };
        let Some(mut block) = self.arena.allocate(bytes) else {
            let largest = self.arena.largest_free();
            let message = format!(
                "a tensor of {bytes} bytes does not fit: {largest} bytes are free in one piece; {}",
                self.arena.advice(bytes)
            );
            self.limiter.refuse(Limit::Tensor, message.clone());
            return Ok(Err(FrameError::OutOfMemory(message)));
        };
        let out = block.bytes_mut().get_mut(..bytes).unwrap_or_default();
        match write(self.resampler, &frame.picture, &spec, out) {
            Ok(made) => {
                let tensor = Tensor::in_block(element(spec.element), shape, block);
                Ok(Ok((self.table.push(tensor)?, made)))
            }
            Err(error) => Ok(Err(self.frame_error(error))),
        }
    }

    /// The component's error of ours. A size that no tensor has is counted as a limit.
    fn frame_error(&mut self, error: video::FrameError) -> FrameError {
        match error {
            video::FrameError::InvalidRegion(message) => FrameError::InvalidRegion(message),
            video::FrameError::InvalidSpec(message) => FrameError::InvalidSpec(message),
            video::FrameError::InvalidSize(message) => {
                self.limiter.refuse(Limit::Tensor, message.clone());
                FrameError::InvalidSpec(message)
            }
        }
    }
}

/// The shape and the bytes of `count` pictures. `None` if that overflows.
fn shape(spec: &video::TensorSpec, count: usize) -> Option<(Vec<u32>, usize)> {
    let count = u32::try_from(count).ok()?;
    let shape = match spec.layout {
        video::Layout::Nchw => vec![count, 3, spec.height, spec.width],
        video::Layout::Nhwc => vec![count, spec.height, spec.width, 3],
    };
    let bytes = element(spec.element).bytes(&shape)?;
    Some((shape, bytes))
}

fn element(element: video::Element) -> Element {
    match element {
        video::Element::F32 => Element::F32,
        video::Element::U8 => Element::U8,
    }
}

fn tensor_spec(spec: wit::TensorSpec) -> video::TensorSpec {
    let three = |(a, b, c): (f32, f32, f32)| [a, b, c];
    video::TensorSpec {
        width: spec.width,
        height: spec.height,
        fit: match spec.fit {
            wit::Fit::Letterbox => video::Fit::Letterbox,
            wit::Fit::Stretch => video::Fit::Stretch,
        },
        channels: match spec.channels {
            wit::Channels::Rgb => video::Channels::Rgb,
            wit::Channels::Bgr => video::Channels::Bgr,
        },
        layout: match spec.layout {
            wit::Layout::Nchw => video::Layout::Nchw,
            wit::Layout::Nhwc => video::Layout::Nhwc,
        },
        element: match spec.element {
            wit::Element::F32 => video::Element::F32,
            wit::Element::U8 => video::Element::U8,
        },
        fill: three(spec.fill),
        mean: three(spec.mean),
        std: three(spec.std),
    }
}

fn placement(placement: video::Placement) -> wit::Placement {
    wit::Placement {
        scale_x: placement.scale_x,
        scale_y: placement.scale_y,
        offset_x: placement.offset_x,
        offset_y: placement.offset_y,
    }
}

impl wit::Host for FramesView<'_> {}

impl wit::HostImage for FramesView<'_> {
    fn width(&mut self, image: Resource<Image>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&image)?.width)
    }

    fn height(&mut self, image: Resource<Image>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&image)?.height)
    }

    fn size(&mut self, image: Resource<Image>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&image)?.jpeg.len() as u64)
    }

    fn drop(&mut self, image: Resource<Image>) -> wasmtime::Result<()> {
        self.table.delete(image)?;
        Ok(())
    }
}

impl wit::HostFrame for FramesView<'_> {
    fn index(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&frame)?.frame.number)
    }

    fn capture_time(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&frame)?.frame.capture_ns)
    }

    fn presentation_time(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&frame)?.frame.presentation_ns)
    }

    fn width(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&frame)?.frame.picture.width())
    }

    fn height(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&frame)?.frame.picture.height())
    }

    fn skipped(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&frame)?.skipped)
    }

    fn tensor(
        &mut self,
        frame: Resource<FrameHandle>,
        region: Option<wit::Rect>,
        spec: wit::TensorSpec,
    ) -> HostResult<(Resource<Tensor>, wit::Placement), FrameError> {
        let made = self.tensor_of(&frame, spec, 1, |resampler, picture, spec, out| {
            resampler.tensor(picture, region.map(rect), spec, out)
        })?;
        Ok(made.map(|(tensor, placed)| (tensor, placement(placed))))
    }

    fn tensors(
        &mut self,
        frame: Resource<FrameHandle>,
        regions: Vec<wit::Rect>,
        spec: wit::TensorSpec,
    ) -> HostResult<(Resource<Tensor>, Vec<wit::Placement>), FrameError> {
        if regions.is_empty() || regions.len() > MAX_REGIONS {
            let message =
                format!("{} regions: between 1 and {MAX_REGIONS} are taken", regions.len());
            return Ok(Err(FrameError::InvalidSpec(message)));
        }
        let regions: Vec<_> = regions.into_iter().map(rect).collect();
        let made =
            self.tensor_of(&frame, spec, regions.len(), |resampler, picture, spec, out| {
                resampler.tensors(picture, &regions, spec, out)
            })?;
        Ok(made.map(|(tensor, placed)| (tensor, placed.into_iter().map(placement).collect())))
    }

    fn warp(
        &mut self,
        frame: Resource<FrameHandle>,
        to_frame: wit::Affine,
        spec: wit::TensorSpec,
    ) -> HostResult<Resource<Tensor>, FrameError> {
        let wit::Affine { a, b, c, d, e, f } = to_frame;
        let to_frame = video::Affine { a, b, c, d, e, f };
        let made = self.tensor_of(&frame, spec, 1, |_, picture, spec, out| {
            video::warp(picture, &to_frame, spec, out)
        })?;
        Ok(made.map(|(tensor, ())| tensor))
    }

    fn luma(
        &mut self,
        frame: Resource<FrameHandle>,
        width: u32,
        height: u32,
    ) -> HostResult<Vec<u8>, FrameError> {
        let frame = Arc::clone(&self.table.get(&frame)?.frame);
        let luma = self.resampler.luma(&frame.picture, width, height);
        Ok(luma.map_err(|error| self.frame_error(error)))
    }

    fn motion(&mut self, frame: Resource<FrameHandle>) -> HostResult<wit::Motion, FrameError> {
        let frame = &self.table.get(&frame)?.frame;
        let motion = self.watch.motion(&frame.picture, frame.presentation_ns);
        let region = |Rect { x, y, width, height }| wit::Rect { x, y, width, height };
        let video::Motion { regions, share, calibrating } = motion;
        let regions = regions.into_iter().map(region).collect();
        Ok(Ok(wit::Motion { regions, share, calibrating }))
    }

    fn flow(
        &mut self,
        frame: Resource<FrameHandle>,
        points: Vec<wit::Point>,
    ) -> HostResult<Vec<Option<wit::Point>>, FrameError> {
        if points.len() > MAX_POINTS {
            let message = format!("{} points: at most {MAX_POINTS} are taken", points.len());
            return Ok(Err(FrameError::InvalidSpec(message)));
        }
        let frame = &self.table.get(&frame)?.frame;
        let points: Vec<_> =
            points.into_iter().map(|wit::Point { x, y }| video::Point { x, y }).collect();
        let found = self.watch.flow(&frame.picture, &points).into_iter();
        let point = |video::Point { x, y }| wit::Point { x, y };
        Ok(Ok(found.map(|found| found.map(point)).collect()))
    }

    fn image(
        &mut self,
        frame: Resource<FrameHandle>,
        region: Option<wit::Rect>,
        quality: u8,
    ) -> HostResult<Resource<Image>, FrameError> {
        self.image_within(frame, region, u32::MAX, quality)
    }

    fn image_within(
        &mut self,
        frame: Resource<FrameHandle>,
        region: Option<wit::Rect>,
        longest: u32,
        quality: u8,
    ) -> HostResult<Resource<Image>, FrameError> {
        let frame = Arc::clone(&self.table.get(&frame)?.frame);
        let video::Jpeg { width, height, bytes } =
            match video::jpeg_within(&frame.picture, region.map(rect), longest, quality) {
                Ok(encoded) => encoded,
                Err(error) => return Ok(Err(self.frame_error(error))),
            };
        let Some(lease) = self.images.reserve(bytes.len()) else {
            let most = self.images.capacity() >> 20;
            let message = format!("the component holds pictures of more than {most} MiB");
            self.limiter.refuse(Limit::Memory, message.clone());
            return Ok(Err(FrameError::OutOfMemory(message)));
        };
        Ok(Ok(self.table.push(Image { width, height, jpeg: bytes, lease })?))
    }

    fn drop(&mut self, frame: Resource<FrameHandle>) -> wasmtime::Result<()> {
        self.table.delete(frame)?;
        Ok(())
    }
}
