/** For tests: processes of one address within one, their messages as copies that take a moment. */
import { Hub } from "./hub.ts"
import type { ToSibling } from "./messages.ts"
import { Siblings } from "./siblings.ts"

export function linked(count: number, hub = new Hub()) {
  const all = Array.from({ length: count }, (_, index) => {
    const send = (message: ToSibling) => soon(message, (copy) => one.heard(copy))
    const one = new Siblings(index, count, (message) => soon(message, (copy) => hub.heard(index, copy, send)))
    hub.joined(index, send)
    return one
  })
  return { hub, all }
}

function soon<T>(message: T, then: (copy: T) => void): void {
  const copy = structuredClone(message)
  setImmediate(() => then(copy))
}
