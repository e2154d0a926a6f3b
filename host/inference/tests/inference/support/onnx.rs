//! ONNX files of a node or two, written as `onnx.ModelProto` of `onnx/onnx.proto`: what they hold is seen here, not in a
//! file made elsewhere.
