/** Files that are written while they are read. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { readSettled } from "./settled-file.ts"

const folder = mkdtempSync(join(tmpdir(), "settled-"))
const path = join(folder, "list.yaml")
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test("one that is being written is read once it is whole", async () => {
  const states = ["", "- http://a\n", "- http://a\n- http://b\n"]
  const write = async () => writeFileSync(path, states.length > 1 ? states.shift()! : states[0]!)
  await write()
  expect(await readSettled(path, write)).toBe("- http://a\n- http://b\n")
})

test("one that never comes to rest is read nevertheless; one that is not there is none", async () => {
  let looks = 0
  const write = async () => writeFileSync(path, `${++looks}`)
  await write()
  expect(await readSettled(path, write)).toBe(String(looks))
  await expect(readSettled(join(folder, "none"))).rejects.toThrow(/ENOENT/)
})

test("as a rule it is looked at twice", async () => {
  writeFileSync(path, "- http://a\n")
  expect(await readSettled(path)).toBe("- http://a\n")
})
