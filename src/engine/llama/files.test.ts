/** The names under which the platform packages carry their libraries. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { expect, onTestFinished, test } from "vitest"
import { findLibrary } from "./files.ts"

test.each([
  ["CPU", ["libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so", "libllama-common.so"]],
  ["CUDA", ["libggml-base.so", "libggml.cuda.v0.5.0.so", "libllama.cuda.v0.5.0.so", "libggml-cuda.so"]],
  ["Windows", ["ggml-base.dll", "ggml.dll", "llama.dll", "llama-common.dll"]],
])("finds the libraries of a %s package", (_, names) => {
  const folder = mkdtempSync(join(tmpdir(), "llama-files-"))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const name of names) writeFileSync(join(folder, name), "")
  const files = findLibrary(folder)
  expect([files.ggmlBase, files.ggml, files.llama].map((path) => basename(path))).toEqual(names.slice(0, 3))
})
