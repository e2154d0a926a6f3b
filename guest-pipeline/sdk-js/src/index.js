/** The SDK for camera pipelines in JavaScript and TypeScript: one class is a pipeline. */

export { Box, suppress } from './boxes.js';
export { budget } from './budget.js';
export { Classifier, cosine, unit } from './classify.js';
export { Detector } from './detect.js';
export { HostError, PipelineError, SettingsError } from './errors.js';
export { Frame, Image, Letterbox, Tensor, tensorSpec } from './frames.js';
export { log } from './log.js';
export { Model, describeModel } from './models.js';
export { COCO_LABELS, NanoDet } from './nanodet.js';
export { CameraPipeline, exportPipeline } from './pipeline.js';
export { decimal, flag, integer, list, optional, settings, text } from './settings.js';
export { Bucket } from './store.js';
export { Tracker } from './tracker.js';
export { Yolo } from './yolo.js';
export { Zone, contains } from './zones.js';
