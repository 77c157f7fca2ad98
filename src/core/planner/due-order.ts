/** Sorts requests by due time, ties by arrival: a natural merge sort over columns of numbers, several times as fast as
 * sorting objects with a comparison function, and quicker still for what was sorted a step ago. */
import type { LiveRequest } from "../request.ts"

let due = new Float64Array(256)
let order = new Float64Array(256)
let from = new Uint32Array(256)
let to = new Uint32Array(256)
/** Where ascending runs of `from` start, and after the last one where it ends. */
let starts = new Uint32Array(257)
const held: LiveRequest[] = []

/** In place. */
export function sortByDue(requests: LiveRequest[]): void {
  const count = requests.length
  if (count < 2) return
  if (count > due.length) enlarge(count)
  for (let i = 0; i < count; i++) {
    const request = requests[i]!
    due[i] = request.dueUs
    order[i] = request.order
  }
  sortColumns(requests)
}

/** In place, by these numbers (one a request) instead. */
export function sortByKey(requests: LiveRequest[], keys: Readonly<Float64Array>): void {
  const count = requests.length
  if (count < 2) return
  if (count > due.length) enlarge(count)
  for (let i = 0; i < count; i++) {
    due[i] = keys[i]!
    order[i] = requests[i]!.order
  }
  sortColumns(requests)
}

function sortColumns(requests: LiveRequest[]): void {
  const count = requests.length
  let runs = 0
  for (let i = 0; i < count; i++) {
    from[i] = i
    if (i === 0 || isAfter(i - 1, i)) starts[runs++] = i
  }
  if (runs === 1) return
  starts[runs] = count
  while (runs > 1) runs = mergeRuns(runs)
  for (let i = 0; i < count; i++) held[i] = requests[i]!
  for (let i = 0; i < count; i++) requests[i] = held[from[i]!]!
  // Ended requests are not to be kept alive from here.
  held.fill(undefined as never, 0, count)
}

/** Merge neighbouring runs of `from` into `to`, then exchange the two. Returns how many runs there are now. */
function mergeRuns(runs: number): number {
  let merged = 0
  for (let run = 0; run < runs; run += 2) {
    const start = starts[run]!
    mergeTwo(start, starts[run + 1]!, starts[Math.min(run + 2, runs)]!)
    starts[merged++] = start
  }
  starts[merged] = starts[runs]!
  const sorted = to
  to = from
  from = sorted
  return merged
}

/** Merge [start, middle) and [middle, end) of `from` into `to`. */
function mergeTwo(start: number, middle: number, end: number): void {
  let left = start
  let right = middle
  for (let at = start; at < end; at++) {
    const takesLeft = left < middle && (right >= end || !isAfter(from[left]!, from[right]!))
    to[at] = takesLeft ? from[left++]! : from[right++]!
  }
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
  starts = new Uint32Array(size + 1)
}
