/** One process that serves its address by itself: it tells and hears through its hub, as several do, what gateways elsewhere do. */
import type { Hub } from "./hub.ts"
import type { ToSibling } from "./messages.ts"
import { Siblings } from "./siblings.ts"

export function alone(hub: Hub): Siblings {
  const send = (message: ToSibling) => one.heard(message)
  const one = new Siblings(0, 1, (message) => hub.heard(0, message, send))
  hub.joined(0, send)
  return one
}
