/** Which library is taken, and one that was compiled here: with a real cmake and compiler, of a small source in llama.cpp's place. */
import { spawnSync } from "node:child_process"
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { describe, expect, onTestFinished, test } from "vitest"
import { BUILT_FILE, builtFolder, couldBeFaster, isBuilt, libraryFor } from "./built.ts"
import { compileLibrary } from "./compile.ts"
import { findLibrary } from "./files.ts"

function cache(): string {
  const folder = mkdtempSync(join(tmpdir(), "llama-built-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function built(cacheDir: string, processor?: string): string {
  const folder = builtFolder(cacheDir, processor)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, BUILT_FILE), "{}")
  return folder
}

describe.skipIf(process.platform !== "linux")("the library that is taken", () => {
  test("is the one built here, where nothing else was asked for", () => {
    const folder = cache()
    expect(libraryFor("auto", folder)).toBe("auto")
    expect(couldBeFaster("auto", folder)).toBe(true)
    const its = built(folder)
    expect(libraryFor("auto", folder)).toBe(its)
    expect(couldBeFaster("auto", folder)).toBe(false)
    for (const choice of ["cpu", "cuda", "/some/folder"]) {
      expect(libraryFor(choice, folder)).toBe(choice)
      expect(couldBeFaster(choice, folder)).toBe(false)
    }
  })

  test("is none that was built for another processor, or not to its end", () => {
    const folder = cache()
    built(folder, "x64 another one with other flags")
    mkdirSync(builtFolder(folder), { recursive: true })
    expect(libraryFor("auto", folder)).toBe("auto")
    expect(couldBeFaster("auto", folder)).toBe(true)
  })
})

const canCompile = ["cmake", "c++"].every((tool) => spawnSync(tool, ["--version"]).status === 0)

describe.skipIf(process.platform !== "linux" || !canCompile)("compiling", () => {
  function source(code: string): string {
    const folder = join(cache(), "source")
    mkdirSync(folder)
    writeFileSync(
      join(folder, "CMakeLists.txt"),
      "cmake_minimum_required(VERSION 3.14)\nproject(small CXX)\nadd_library(ggml-cpu MODULE part.cpp)\n",
    )
    writeFileSync(join(folder, "part.cpp"), code)
    return folder
  }

  test("puts the part beside the prebuilt ones", { timeout: 60_000 }, async () => {
    const folder = builtFolder(cache())
    const said: string[] = []
    const onProgress = (what: string) => said.push(what)
    await compileLibrary({ folder, source: source('extern "C" int part() { return 1; }\n'), onProgress })
    expect(isBuilt(folder)).toBe(true)
    const { ggmlBase, ggml, llama } = findLibrary("cpu")
    expect(readdirSync(folder).sort()).toEqual(
      [BUILT_FILE, ...[ggmlBase, ggml, llama].map((path) => basename(path)), "libggml-cpu.so"].sort(),
    )
    expect(findLibrary(folder).folder).toBe(folder)
    expect(readdirSync(dirname(folder))).toEqual([basename(folder)])
    expect(said.join()).toContain("compiling")
  })

  test("a compiler's complaint is told, and nothing is left", { timeout: 60_000 }, async () => {
    const folder = builtFolder(cache())
    const broken = source("this is no C++\n")
    await expect(compileLibrary({ folder, source: broken })).rejects.toThrow(
      /cmake could not compile: .*this is no C\+\+/s,
    )
    await expect(compileLibrary({ folder, source: join(broken, "none") })).rejects.toThrow(
      /cmake could not configure/,
    )
    expect(existsSync(folder)).toBe(false)
    expect(readdirSync(dirname(folder))).toEqual([])
  })

  test("tools that are missing are named", async () => {
    const { PATH, CXX } = process.env
    onTestFinished(() => void Object.assign(process.env, { PATH, ...(CXX !== undefined && { CXX }) }))
    process.env.PATH = cache()
    await expect(compileLibrary({ folder: builtFolder(cache()) })).rejects.toThrow(
      "needs npm, tar, git, cmake, a C++ compiler, which this machine lacks; on Debian and Ubuntu: apt install npm git cmake g++",
    )
  })
})

test.skipIf(process.platform !== "linux" || process.arch !== "x64")(
  "the engine loads a folder with one computing part, which bears no processor's name",
  async () => {
    const folder = cache()
    const { ggmlBase, ggml, llama } = findLibrary("cpu")
    for (const path of [ggmlBase, ggml, llama]) copyFileSync(path, join(folder, basename(path)))
    copyFileSync(join(dirname(llama), "libggml-cpu-x64.so"), join(folder, "libggml-cpu.so"))
    const program = `
      import { openLlama } from ${JSON.stringify(new URL("./engine.ts", import.meta.url).href)}
      import { resolveModel } from ${JSON.stringify(new URL("../../models/resolve.ts", import.meta.url).href)}
      const { path: modelPath } = await resolveModel("tiny")
      const engine = await openLlama({ modelPath, threads: 1, maxSequences: 1, contextTokens: 64, maxBatchTokens: 32, library: ${JSON.stringify(folder)} })
      const maps = (await import("node:fs")).readFileSync("/proc/self/maps", "utf8")
      console.log([...new Set(maps.match(/\\S*libggml-cpu\\S*/g))].join())
      await engine.close()`
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      encoding: "utf8",
    })
    expect(stdout.trim(), stderr).toBe(join(folder, "libggml-cpu.so"))
  },
  60_000,
)
