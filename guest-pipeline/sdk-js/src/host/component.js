/** The host's interfaces in a component: what the bindings define. */

import * as boxes from 'ocelli:pipeline/boxes@0.3.0';
import * as budget from 'ocelli:pipeline/budget@0.3.0';
import * as models from 'ocelli:pipeline/models@0.3.0';
import * as atomics from 'wasi:keyvalue/atomics@0.2.0-draft2';
import * as store from 'wasi:keyvalue/store@0.2.0-draft2';
import * as logging from 'wasi:logging/logging@0.1.0-draft';
import * as graph from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import * as tensor from 'wasi:nn/tensor@0.2.0-rc-2024-10-28';

export const host = { atomics, boxes, budget, graph, logging, models, store, tensor };
