/** Classes that change while a server runs: each keeps its app, and nothing changes where there would be too many. */
import { expect, it } from "vitest"
import { parseSloClasses } from "./file.ts"
import { renewClasses } from "./slo-classes.ts"

const read = (text: string) => parseSloClasses(text, "x")

it("keep their apps whatever their order; new ones get the next; those that are gone keep theirs", () => {
  const classes = read("classes: {a: {tpot: 1ms}, b: {tpot: 2ms, aliases: [q]}}\n")
  const holder = { classes }
  expect(renewClasses(classes, read("classes: {c: {tpot: 3ms}, b: {tpot: 5ms, aliases: [r]}}\n"), 4)).toEqual(
    [],
  )
  expect(holder.classes.all.map(({ name, app, slo }) => [name, app, slo.tpotUs])).toEqual([
    ["c", 2, 3000],
    ["b", 1, 5000],
  ])
  expect(classes.names).toEqual(["a", "b", "c"])
  expect(classes.default).toBe(classes.byName.get("c"))
  expect([classes.byAlias.get("q"), classes.byAlias.get("r")]).toEqual([undefined, classes.byName.get("b")])
  expect(renewClasses(classes, read("classes: {a: {tpot: 9ms}}\n"), 4)).toEqual([])
  expect(classes.all.map(({ name, app }) => [name, app])).toEqual([["a", 0]])
})

it("are refused whole where there would be too many", () => {
  const classes = read("classes: {a: {tpot: 1ms}}\n")
  const before = structuredClone(classes)
  expect(
    renewClasses(classes, read("classes: {a: {tpot: 2ms}, b: {tpot: 1ms}, c: {tpot: 1ms}}\n"), 2),
  ).toEqual(["c"])
  expect(classes).toEqual(before)
})
