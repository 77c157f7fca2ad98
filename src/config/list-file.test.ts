/** Lists in files of their own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { z } from "zod"
import { UserError } from "../errors.ts"
import { readListFile } from "./list-file.ts"

const folder = mkdtempSync(join(tmpdir(), "slos-serve-lists-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, "cities.yaml")

const form = { name: "cities", schema: z.array(z.string()), example: "Aarhus" }
const read = (text: string) => {
  writeFileSync(path, text)
  return readListFile(path, form)
}

test.each<[string, string[]]>([
  ["- a\n- b\n", ["a", "b"]],
  ["cities: [a]\n", ["a"]],
  ["cities: [a]\nlakes: [b]\n", ["a"]],
  ["cities:\n", []],
  ["# none yet\n", []],
  ["", []],
])("%j is a list", async (text, list) => {
  expect(await read(text)).toEqual(list)
})

test.each(["a", "- 7\n", "city: [a]\n", "{}", "cities: a\n", "cities: {a: b}\n"])(
  "%j is none, and says how one would be",
  async (text) => {
    const found = await read(text).catch((error: unknown) => error)
    expect(found).toBeInstanceOf(UserError)
    expect((found as Error).message).toBe(`${path}: it is no list of cities; give lines like - Aarhus`)
  },
)

test("what is no YAML, or is not there, is said in one line with its path", async () => {
  await expect(read("- [\n- b: {")).rejects.toThrow(/^\S+\.yaml: [^\n]+$/)
  await expect(readListFile(join(folder, "none.yaml"), form)).rejects.toThrow(/^\S+none\.yaml: [^\n]+$/)
})
