/** The session's log. What `console.log` prints goes there, too, at level info. */

import { host } from '#host';

const at =
  (level) =>
  (message, context = 'pipeline') =>
    host.logging.log(level, context, String(message));

export const log = {
  debug: at('debug'),
  info: at('info'),
  warn: at('warn'),
  error: at('error'),
};
