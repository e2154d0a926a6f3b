/** The host's interfaces outside of a component; `withHost` of `@ocelli/sdk/testing` sets them. */

const absent = (name) => () => {
  throw new Error(`${name} is the host's: it is not there in a test`);
};

export const host = {
  atomics: { increment: absent('atomics.increment') },
  boxes: {
    best: absent('boxes.best'),
    rows: absent('boxes.rows'),
    suppress: absent('boxes.suppress'),
  },
  budget: { ask: absent('budget.ask') },
  graph: { loadByName: absent('graph.loadByName') },
  logging: { log: () => {} },
  models: { describe: absent('models.describe') },
  store: { open: absent('store.open') },
  tensor: { Tensor: absent('the constructor of a tensor') },
};
