/** The planner keeps off its engines' cores, as far as there are others. */
import { execFileSync } from "node:child_process"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { ElbowRoom } from "./elbow-room.ts"

function room(all: number[]) {
  const set: number[][] = []
  const cores = { get: () => all, set: (to: readonly number[]) => set.push([...to]) > 0 }
  return { room: new ElbowRoom(cores), set }
}

test("it runs where no engine does, and anywhere again when they are gone", () => {
  const { room: own, set } = room([0, 1, 2, 5])
  own.engineOn("a", 2)
  own.engineOn("a", 2)
  own.engineOn("b", 0)
  own.engineOn("a", 5)
  own.gone("b")
  own.gone("b")
  own.gone("a")
  expect(set).toEqual([
    [0, 1, 5],
    [1, 5],
    [1, 2],
    [0, 1, 2],
    [0, 1, 2, 5],
  ])
})

test("engines on all cores leave it where it may be", () => {
  const { room: own, set } = room([0, 1])
  own.engineOn("a", 0)
  own.engineOn("b", 1)
  own.engineOn("c", 7)
  expect(set).toEqual([[1], [0, 1], [0, 1]])
})

test("where threads cannot be held to cores it does nothing", () => {
  const own = new ElbowRoom(null)
  expect(() => own.engineOn("a", 0)).not.toThrow()
})

test.runIf(process.platform === "linux" && availableParallelism() > 1)(
  "Linux holds its thread to them",
  () => {
    const path = join(import.meta.dirname, "elbow-room.ts")
    const program = `
      import { readFileSync } from "node:fs"
      import { ElbowRoom } from ${JSON.stringify(path)}
      const list = () => /Cpus_allowed_list:\\s*(.*)/.exec(readFileSync("/proc/thread-self/status", "utf8"))[1]
      const count = (text) => text.split(",").map((p) => p.split("-").map(Number)).reduce((n, [a, b = a]) => n + b - a + 1, 0)
      const before = list()
      const room = new ElbowRoom()
      room.engineOn("a", Number(/\\d+/.exec(before)[0]))
      const during = list()
      room.gone("a")
      console.log(JSON.stringify([count(before) - count(during), list() === before]))`
    const out = execFileSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" })
    expect(JSON.parse(out)).toEqual([1, true])
  },
)
