//! The interfaces of the older versions, of which nothing has changed but the version in their
//! name: the newest version's functions stand under the old names, too. The component model
//! compares types by structure, so the newest version's records are theirs.
//!
//! Of `results`, 0.3 changed the record `output`: what a component of 0.1 or 0.2 returns is
//! converted.
//!
//! A version from whose interface something has been taken or changed since needs bindings of its
//! own instead. One to which something was added needs nothing: `ocelli-compile` refuses a
//! component that imports what its version has not.

use ocelli_protocol::contract::PACKAGE;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentNamedList, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use crate::guest::boxes::BoxesView;
use crate::guest::frames::FramesView;
use crate::guest::newest;
use crate::guest::newest::boxes::{self, Axes, Columns, ScoredBox};
use crate::guest::newest::frames::{Affine, HostFrame, HostImage, Rect, TensorSpec};
use crate::guest::resources::{FrameHandle, Image};
use crate::guest::state::InstanceState;
use crate::guest::tensor::Tensor;
use crate::guest::versions::v0_1::results;

/// What `process` of a component of 0.1 or 0.2 returned. It says nothing of its basis.
pub(super) fn output(output: results::Output) -> newest::results::Output {
    let event = |event: results::Event| newest::results::Event {
        kind: event.kind,
        detections: detections(event.detections),
        data: event.data,
        attachments: event.attachments,
    };
    newest::results::Output {
        detections: output.detections.map(detections),
        events: output.events.into_iter().map(event).collect(),
        basis: None,
    }
}

fn detections(found: Vec<results::Detection>) -> Vec<newest::results::Detection> {
    let attribute = |attribute: results::Attribute| newest::results::Attribute {
        name: attribute.name,
        value: attribute.value,
        score: attribute.score,
    };
    let convert = |detection: results::Detection| newest::results::Detection {
        label: detection.label,
        score: detection.score,
        box_: detection.box_,
        track: detection.track,
        attributes: detection.attributes.into_iter().map(attribute).collect(),
        embedding: detection.embedding,
    };
    found.into_iter().map(convert).collect()
}

/// Offers the interfaces of this version: "0.1.0".
pub(super) fn link(linker: &mut Linker<InstanceState>, version: &str) -> wasmtime::Result<()> {
    link_frames(&mut linker.instance(&format!("{PACKAGE}/frames@{version}"))?)?;
    link_boxes(&mut linker.instance(&format!("{PACKAGE}/boxes@{version}"))?)
}

fn link_frames(to: &mut LinkerInstance<'_, InstanceState>) -> wasmtime::Result<()> {
    type Frame = Resource<FrameHandle>;
    type Picture = Resource<Image>;
    to.resource("image", ResourceType::host::<Image>(), |mut store, handle| {
        HostImage::drop(&mut store.data_mut().frames(), Resource::new_own(handle))
    })?;
    to.resource("frame", ResourceType::host::<FrameHandle>(), |mut store, handle| {
        HostFrame::drop(&mut store.data_mut().frames(), Resource::new_own(handle))
    })?;
    on_frames(to, "[method]image.width", |frames, (image,): (Picture,)| {
        HostImage::width(frames, image)
    })?;
    on_frames(to, "[method]image.height", |frames, (image,): (Picture,)| {
        HostImage::height(frames, image)
    })?;
    on_frames(to, "[method]image.size", |frames, (image,): (Picture,)| {
        HostImage::size(frames, image)
    })?;
    on_frames(to, "[method]frame.index", |frames, (frame,): (Frame,)| {
        HostFrame::index(frames, frame)
    })?;
    on_frames(to, "[method]frame.capture-time", |frames, (frame,): (Frame,)| {
        HostFrame::capture_time(frames, frame)
    })?;
    on_frames(to, "[method]frame.presentation-time", |frames, (frame,): (Frame,)| {
        HostFrame::presentation_time(frames, frame)
    })?;
    on_frames(to, "[method]frame.width", |frames, (frame,): (Frame,)| {
        HostFrame::width(frames, frame)
    })?;
    on_frames(to, "[method]frame.height", |frames, (frame,): (Frame,)| {
        HostFrame::height(frames, frame)
    })?;
    on_frames(to, "[method]frame.skipped", |frames, (frame,): (Frame,)| {
        HostFrame::skipped(frames, frame)
    })?;
    on_frames(
        to,
        "[method]frame.tensor",
        |frames, (frame, region, spec): (Frame, Option<Rect>, TensorSpec)| {
            HostFrame::tensor(frames, frame, region, spec)
        },
    )?;
    on_frames(
        to,
        "[method]frame.tensors",
        |frames, (frame, regions, spec): (Frame, Vec<Rect>, TensorSpec)| {
            HostFrame::tensors(frames, frame, regions, spec)
        },
    )?;
    on_frames(
        to,
        "[method]frame.warp",
        |frames, (frame, to_frame, spec): (Frame, Affine, TensorSpec)| {
            HostFrame::warp(frames, frame, to_frame, spec)
        },
    )?;
    on_frames(to, "[method]frame.luma", |frames, (frame, width, height): (Frame, u32, u32)| {
        HostFrame::luma(frames, frame, width, height)
    })?;
    on_frames(
        to,
        "[method]frame.image",
        |frames, (frame, region, quality): (Frame, Option<Rect>, u8)| {
            HostFrame::image(frames, frame, region, quality)
        },
    )
}

fn link_boxes(to: &mut LinkerInstance<'_, InstanceState>) -> wasmtime::Result<()> {
    type Table = Resource<Tensor>;
    on_boxes(
        to,
        "best",
        |view, (table, axes, classes, threshold, limit): (Table, Axes, Option<Columns>, f32, u32)| {
            boxes::Host::best(view, table, axes, classes, threshold, limit)
        },
    )?;
    on_boxes(to, "rows", |view, (table, axes, rows): (Table, Axes, Vec<u32>)| {
        boxes::Host::rows(view, table, axes, rows)
    })?;
    on_boxes(to, "suppress", |view, (candidates, iou): (Vec<ScoredBox>, f32)| {
        boxes::Host::suppress(view, candidates, iou)
    })
}

/// Offers a function on the view of `frames`.
fn on_frames<P, R>(
    to: &mut LinkerInstance<'_, InstanceState>,
    name: &str,
    call: fn(&mut FramesView<'_>, P) -> wasmtime::Result<R>,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    (R,): ComponentNamedList + Lower + 'static,
{
    to.func_wrap(name, move |mut store: StoreContextMut<'_, InstanceState>, params: P| {
        Ok((call(&mut store.data_mut().frames(), params)?,))
    })
}

/// Offers a function on the view of `boxes`.
fn on_boxes<P, R>(
    to: &mut LinkerInstance<'_, InstanceState>,
    name: &str,
    call: fn(&mut BoxesView<'_>, P) -> wasmtime::Result<R>,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
    (R,): ComponentNamedList + Lower + 'static,
{
    to.func_wrap(name, move |mut store: StoreContextMut<'_, InstanceState>, params: P| {
        Ok((call(&mut store.data_mut().boxes(), params)?,))
    })
}
