/** Compiles the part of llama.cpp that computes on a processor for the very one it runs on, from the source that npm carries,
 * and puts it beside the other parts of the prebuilt library. */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { availableParallelism } from "node:os"
import { basename, dirname, join } from "node:path"
import { promisify } from "node:util"
import { UserError } from "../../errors.ts"
import { BUILT_FILE, couldBuild } from "./built.ts"
import { findLibrary, LLAMA_VERSION, PACKAGE_VERSION } from "./files.ts"

/** The package with the source that the prebuilt libraries were made of, and its sum: it is compiled and run. */
const SOURCE_PACKAGE = `node-llama-cpp@${PACKAGE_VERSION}`
const SOURCE_SHA512 =
  "bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw=="
const SOURCE_BUNDLE = "package/llama/gitRelease.bundle"

const TOOLS = ["npm", "tar", "git", "cmake"]
const COMPILERS = ["c++", "g++", "clang++"]

const NATIVE = process.arch === "arm64" ? "-mcpu=native" : "-march=native"
/** As the prebuilt one in all but the compiler and what it may use. GGML_NATIVE is refused for parts that are loaded by name. */
const CMAKE_OPTIONS = {
  CMAKE_BUILD_TYPE: "Release",
  ...{ CMAKE_C_FLAGS: NATIVE, CMAKE_CXX_FLAGS: NATIVE, BUILD_SHARED_LIBS: "ON" },
  ...{ GGML_BACKEND_DL: "ON", GGML_NATIVE: "OFF", GGML_LLAMAFILE: "ON", GGML_OPENMP: "OFF" },
  ...{ GGML_CCACHE: "OFF", LLAMA_BUILD_COMMON: "OFF", LLAMA_BUILD_TOOLS: "OFF", LLAMA_BUILD_SERVER: "OFF" },
  ...{ LLAMA_BUILD_TESTS: "OFF", LLAMA_BUILD_EXAMPLES: "OFF", LLAMA_BUILD_UI: "OFF", LLAMA_CURL: "OFF" },
  // Else they are taken for granted, also where this processor has them not.
  ...{
    GGML_SSE42: "OFF",
    GGML_AVX: "OFF",
    GGML_AVX2: "OFF",
    GGML_BMI2: "OFF",
    GGML_FMA: "OFF",
    GGML_F16C: "OFF",
  },
  // The prebuilt parts know each other by names without versions.
  CMAKE_PLATFORM_NO_VERSIONED_SONAME: "ON",
}
const BUILT_PART = "libggml-cpu.so"

export interface CompileOptions {
  /** Where it will be, whole or not at all. */
  folder: string
  /** Of llama.cpp's source, in place of the package's. */
  source?: string
  onProgress?: (what: string) => void
}

/** Throws UserError when a tool is missing or fails. */
export async function compileLibrary({
  folder,
  source,
  onProgress = () => {},
}: CompileOptions): Promise<void> {
  await checkTools(source === undefined)
  await mkdir(dirname(folder), { recursive: true })
  const work = await mkdtemp(`${folder}.`)
  try {
    const from = source ?? (await fetchSource(work, onProgress))
    const part = await compile(from, work, onProgress)
    const whole = join(work, "whole")
    await assemble(whole, part)
    await rm(folder, { recursive: true, force: true })
    await rename(whole, folder)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function checkTools(fetches: boolean): Promise<void> {
  if (!couldBuild())
    throw new UserError(`building the library has been tried on Linux only, this is ${process.platform}`)
  const missing: string[] = []
  for (const tool of fetches ? TOOLS : ["cmake"]) if (!(await isThere(tool))) missing.push(tool)
  const compilers = process.env.CXX === undefined ? COMPILERS : [process.env.CXX]
  const found = await Promise.all(compilers.map(isThere))
  if (!found.includes(true)) missing.push("a C++ compiler")
  if (missing.length > 0)
    throw new UserError(
      `building the library needs ${missing.join(", ")}, which this machine lacks; on Debian and Ubuntu: apt install npm git cmake g++`,
    )
}

const isThere = (tool: string) =>
  run(tool, ["--version"]).then(
    () => true,
    () => false,
  )

async function fetchSource(work: string, onProgress: (what: string) => void): Promise<string> {
  onProgress(`fetching ${SOURCE_PACKAGE}`)
  await step("npm", ["pack", SOURCE_PACKAGE, "--pack-destination", work, "--silent"], "get the source")
  const [name] = (await readdir(work)).filter((file) => file.endsWith(".tgz"))
  const path = join(work, name!)
  const sum = createHash("sha512")
    .update(await readFile(path))
    .digest("base64")
  if (sum !== SOURCE_SHA512)
    throw new UserError(
      `the source of ${SOURCE_PACKAGE} is not what it was (sha512 ${sum}); it is not compiled`,
    )
  await step("tar", ["-xzf", path, "-C", work, SOURCE_BUNDLE], "unpack the source")
  const source = join(work, "source")
  const quiet = ["-c", "advice.detachedHead=false"]
  await step("git", [...quiet, "clone", "--quiet", join(work, SOURCE_BUNDLE), source], "unpack the source")
  return source
}

/** Answers where the compiled part is. */
async function compile(source: string, work: string, onProgress: (what: string) => void): Promise<string> {
  onProgress("compiling for this processor (a minute or a few)")
  const build = join(work, "build")
  const options = Object.entries(CMAKE_OPTIONS).map(([name, value]) => `-D${name}=${value}`)
  await step("cmake", ["-S", source, "-B", build, ...options], "configure the build")
  const jobs = String(availableParallelism())
  await step("cmake", ["--build", build, "--target", "ggml-cpu", "--parallel", jobs], "compile")
  const [part] = (await readdir(build, { recursive: true })).filter((path) => basename(path) === BUILT_PART)
  if (part === undefined)
    throw new UserError(`the build made no ${BUILT_PART}; is ${source} llama.cpp ${LLAMA_VERSION}?`)
  return join(build, part)
}

/** The prebuilt parts, with the compiled one in the place of those that each are for a family of processors. */
async function assemble(folder: string, part: string): Promise<void> {
  await mkdir(folder)
  const prebuilt = findLibrary("cpu")
  for (const path of [prebuilt.ggmlBase, prebuilt.ggml, prebuilt.llama])
    await copyFile(path, join(folder, basename(path)))
  await copyFile(part, join(folder, BUILT_PART))
  const built = { llama: LLAMA_VERSION, package: PACKAGE_VERSION, at: new Date().toISOString() }
  await writeFile(join(folder, BUILT_FILE), `${JSON.stringify(built)}\n`)
}

const run = promisify(execFile)
const MOST_OUTPUT_BYTES = 64 << 20
/** Of what a tool said last. */
const SHOWN_LINES = 6

async function step(tool: string, args: readonly string[], what: string): Promise<void> {
  try {
    await run(tool, args, { maxBuffer: MOST_OUTPUT_BYTES })
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string }
    const words = stderr.trim() || stdout.trim() || (error as Error).message
    const last = words.split("\n").slice(-SHOWN_LINES).join("\n")
    throw new UserError(`${tool} could not ${what}: ${last}`, { cause: error })
  }
}
