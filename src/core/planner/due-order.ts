/** Sorts requests by due time, ties by arrival: a merge sort over columns of numbers, several times as fast as
 * sorting objects with a comparison function, and this is done at every step. */
import type { LiveRequest } from "../request.ts"

let due = new Float64Array(256)
let order = new Float64Array(256)
let from = new Uint32Array(256)
let to = new Uint32Array(256)
const held: LiveRequest[] = []

/** In place. */
export function sortByDue(requests: LiveRequest[]): void {
  const count = requests.length
  if (count < 2) return
  if (count > due.length) enlarge(count)
  let sorted = true
  for (let i = 0; i < count; i++) {
    const request = requests[i]!
    held[i] = request
    due[i] = request.dueUs
    order[i] = request.order
    from[i] = i
    if (sorted && i > 0 && isAfter(i - 1, i)) sorted = false
  }
  if (!sorted) {
    for (let width = 1; width < count; width *= 2) mergeRuns(count, width)
    for (let i = 0; i < count; i++) requests[i] = held[from[i]!]!
  }
  // Ended requests are not to be kept alive from here.
  held.fill(undefined as never, 0, count)
}

/** Merge neighbouring runs of `width` of `from` into `to`, then exchange the two. */
function mergeRuns(count: number, width: number): void {
  for (let start = 0; start < count; start += 2 * width) {
    const middle = Math.min(start + width, count)
    const end = Math.min(start + 2 * width, count)
    let left = start
    let right = middle
    for (let at = start; at < end; at++) {
      const takesLeft = left < middle && (right >= end || !isAfter(from[left]!, from[right]!))
      to[at] = takesLeft ? from[left++]! : from[right++]!
    }
  }
  const merged = to
  to = from
  from = merged
}

function isAfter(a: number, b: number): boolean {
  const difference = due[a]! - due[b]!
  return difference > 0 || (due[a] === due[b] && order[a]! > order[b]!)
}

function enlarge(count: number): void {
  const size = 2 ** Math.ceil(Math.log2(count))
  due = new Float64Array(size)
  order = new Float64Array(size)
  from = new Uint32Array(size)
  to = new Uint32Array(size)
}
