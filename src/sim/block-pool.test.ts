/** A pool of KV blocks as vLLM has it. */
import { expect, test } from "vitest"
import { BlockPool } from "./block-pool.ts"

/** Two requests that have computed the same two blocks on their own, and one more each. */
function twice(): BlockPool {
  const pool = new BlockPool(8)
  for (const id of [1, 2]) {
    expect(pool.take(id, [], 0, 3)).toBe(true)
    pool.fill(id, [10, 11])
  }
  return pool
}

test("what is computed twice is there twice; sharing takes the copy that a request holds", () => {
  const pool = twice()
  expect([pool.free, pool.found([10, 11, 12])]).toEqual([2, 2])
  // The copies that came first are free now.
  pool.release(1)
  expect(pool.free).toBe(5)
  expect(pool.take(3, [10, 11], 2, 3)).toBe(true)
  expect(pool.free).toBe(4)
  // What is shared stays with the other.
  pool.release(2)
  expect(pool.free).toBe(5)
  pool.release(3)
  expect([pool.free, pool.found([10, 11])]).toEqual([8, 2])
})

test("a shared block that is only kept takes room", () => {
  const pool = twice()
  pool.release(1)
  pool.release(2)
  expect(pool.take(3, [10, 11], 2, 2)).toBe(true)
  expect(pool.free).toBe(6)
  expect(pool.take(4, [], 0, 7)).toBe(false)
  expect([pool.holds(4), pool.free]).toEqual([false, 6])
})

test("blocks are taken: those that cannot be found, then those given up longest ago, the end of a prefix before its beginning", () => {
  const pool = twice()
  pool.release(2)
  pool.release(1)
  pool.take(3, [], 0, 4)
  expect(pool.found([10, 11])).toBe(2)
  // Of both copies the end goes first.
  pool.take(3, [], 0, 5)
  expect(pool.found([10, 11])).toBe(2)
  pool.take(3, [], 0, 7)
  expect(pool.found([10, 11])).toBe(1)
  pool.take(3, [], 0, 8)
  expect([pool.found([10, 11]), pool.take(3, [], 0, 9)]).toEqual([0, false])
})
