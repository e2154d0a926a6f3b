/**
 * Whether a model may run for a frame: the host shares its time for models between its cameras, and
 * gives it to those that need it most.
 */

import { host } from '#host';

export const budget = {
  ask(want) {
    // The bindings would take anything else for 0, and the camera would hardly ever be looked at.
    if (typeof want !== 'number') throw new TypeError(`budget.ask takes a number, not ${want}`);
    return host.budget.ask(want);
  },
};
