//! `models`: what the host has told of its models when the worker was started.

use ocelli_protocol::inference::TensorDeclaration;
use ocelli_protocol::model::{
    AxisOrder, ChannelOrder, DecoderTable, ModelDescription, ModelDescriptions, PictureFit,
    PictureInput,
};

use super::HostResult;
use super::newest::frames::{Channels, Element, Fit, Layout, TensorSpec};
use super::newest::models as wit;
use super::nn::tensor_type;

/// The descriptions that a worker got.
#[derive(Default)]
pub(super) struct DescribedModels(pub(super) std::sync::Arc<ModelDescriptions>);

impl wit::Host for DescribedModels {
    fn describe(&mut self, name: String) -> HostResult<wit::ModelDescription, String> {
        let Self(models) = self;
        Ok(models.get(&name).map(described).ok_or_else(|| {
            let names: Vec<&str> = models.keys().map(String::as_str).collect();
            format!("the host has no model {name:?}; it has: {}", names.join(", "))
        }))
    }
}

fn described(model: &ModelDescription) -> wit::ModelDescription {
    let ModelDescription { inputs, outputs, picture, decoder, labels } = model;
    let tensors = |declared: &[TensorDeclaration]| declared.iter().map(tensor).collect();
    wit::ModelDescription {
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        picture: picture
            .as_ref()
            .map(|picture| wit::PictureInput { name: picture.name.clone(), spec: spec(picture) }),
        decoder: decoder.as_ref().map(|DecoderTable { family, parameters }| wit::Decoder {
            family: family.clone(),
            parameters: parameters.clone(),
        }),
        labels: labels.clone(),
    }
}

fn tensor(declared: &TensorDeclaration) -> wit::TensorDescription {
    let TensorDeclaration { name, element, shape } = declared;
    wit::TensorDescription { name: name.clone(), ty: tensor_type(*element), shape: shape.clone() }
}

fn spec(picture: &PictureInput) -> TensorSpec {
    let PictureInput { width, height, layout, bytes, channels, fit, mean, std, fill, .. } = picture;
    let three = |&[a, b, c]: &[f32; 3]| (a, b, c);
    TensorSpec {
        width: *width,
        height: *height,
        fit: match fit {
            PictureFit::Letterbox => Fit::Letterbox,
            PictureFit::Stretch => Fit::Stretch,
        },
        channels: match channels {
            ChannelOrder::Rgb => Channels::Rgb,
            ChannelOrder::Bgr => Channels::Bgr,
        },
        layout: match layout {
            AxisOrder::Nchw => Layout::Nchw,
            AxisOrder::Nhwc => Layout::Nhwc,
        },
        element: if *bytes { Element::U8 } else { Element::F32 },
        fill: three(fill),
        mean: three(mean),
        std: three(std),
    }
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::inference::Element as Numbers;

    use super::*;

    fn eye() -> ModelDescription {
        ModelDescription {
            inputs: vec![TensorDeclaration {
                name: "images".into(),
                element: Numbers::Bool,
                shape: vec![-1, 3, 256, 320],
            }],
            outputs: vec![],
            picture: Some(PictureInput {
                name: "images".into(),
                width: 320,
                height: 256,
                layout: AxisOrder::Nhwc,
                bytes: true,
                channels: ChannelOrder::Bgr,
                fit: PictureFit::Stretch,
                mean: [1.0, 2.0, 3.0],
                std: [4.0, 5.0, 6.0],
                fill: [7.0, 8.0, 9.0],
            }),
            decoder: Some(DecoderTable { family: "yolov8".into(), parameters: "{}".into() }),
            labels: vec!["cup".into()],
        }
    }

    #[test]
    fn a_model_is_described_as_the_host_told_it_and_an_unknown_name_is_answered_with_the_known() {
        let models = ModelDescriptions::from([("eye".into(), eye()), ("nose".into(), eye())]);
        let mut models = DescribedModels(models.into());
        let mut describe = |name: &str| wit::Host::describe(&mut models, name.to_owned()).unwrap();
        let found = describe("eye").unwrap();
        let wit::TensorDescription { ty, shape, .. } = &found.inputs[0];
        assert_eq!((ty, shape.as_slice()), (&tensor_type(Numbers::U8), &[-1, 3, 256, 320][..]));
        let wit::PictureInput { name, spec } = found.picture.unwrap();
        assert_eq!((name.as_str(), spec.width, spec.height), ("images", 320, 256));
        assert!(matches!(spec.element, Element::U8) && matches!(spec.layout, Layout::Nhwc));
        assert!(matches!(spec.channels, Channels::Bgr) && matches!(spec.fit, Fit::Stretch));
        assert_eq!((spec.mean, spec.std), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)));
        assert_eq!((spec.fill, found.labels), ((7.0, 8.0, 9.0), vec!["cup".to_owned()]));
        assert_eq!(found.decoder.unwrap().family, "yolov8");
        assert_eq!(
            describe("ear").unwrap_err(),
            "the host has no model \"ear\"; it has: eye, nose"
        );
    }
}
