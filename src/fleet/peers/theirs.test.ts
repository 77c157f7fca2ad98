/** What a gateway tells, on one connection after another. */
import { deserialize } from "node:v8"
import { expect, test } from "vitest"
import { Hub } from "../../siblings/hub.ts"
import type { ToSibling } from "../../siblings/messages.ts"
import { Numbers } from "./numbers.ts"
import { Theirs } from "./theirs.ts"

/** What a process here is told of it: words, all of a process's, or that it left. */
function listening() {
  const hub = new Hub()
  const heard: unknown[] = []
  hub.joined(0, (message: ToSibling) => {
    if (message.type === "left") heard.push(["left", message.from])
    if (message.type !== "told") return
    for (const { from, told, whole } of message.all)
      heard.push([whole ? "whole" : "told", from, (deserialize(told) as { word: unknown }[])[0]!.word])
  })
  const theirs = new Theirs(hub, new Numbers(1))
  // What is told goes out before what a process is told next.
  const all = () => {
    hub.forget(99)
    return heard.splice(0).slice(0, -1)
  }
  return { theirs, all }
}

const [first, second] = [{}, {}]
const words = (word: string) => [{ topic: "news", word }]

test("is heard on the connection that began last, in its own count; what comes late on another is not", () => {
  const { theirs, all } = listening()
  theirs.tell(first, 0, words("before it began"))
  theirs.begin(first, 1, [5])
  theirs.tell(first, 5, words("a"))
  theirs.begin(second, 3, [5])
  theirs.tell(first, 5, words("late"))
  theirs.left(first, 5)
  theirs.tell(second, 5, words("b"), true)
  // Told before the other, and slower.
  theirs.begin(first, 2, [])
  theirs.tell(first, 5, words("later still"), true)
  theirs.tell(second, 5, words("c"))
  expect(all()).toEqual([
    ["told", 1, "a"],
    ["whole", 1, "b"],
    ["told", 1, "c"],
  ])
})

test("a process that is not there any more when a connection begins is gone; of the others nothing is forgotten", () => {
  const { theirs, all } = listening()
  theirs.begin(first, 1, [5, 6])
  for (const from of [5, 6]) theirs.tell(first, from, words("a"))
  theirs.ended(first, second)
  expect(all()).toEqual([
    ["told", 1, "a"],
    ["told", 2, "a"],
  ])
  theirs.begin(second, 2, [6, 7])
  expect(all()).toEqual([["left", 1]])
  // Its number is another's now.
  theirs.tell(second, 7, words("b"))
  theirs.gone()
  theirs.gone()
  expect(all()).toEqual([
    ["told", 1, "b"],
    ["left", 2],
    ["left", 1],
  ])
})

test("more processes than a gateway can have are not taken", () => {
  const { theirs } = listening()
  theirs.begin(first, 1, [])
  for (let from = 0; from < 1024; from++) theirs.tell(first, from, words("a"))
  expect(() => theirs.tell(first, 1024, words("a"))).toThrow(/too many processes/)
})
