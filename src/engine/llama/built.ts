/** Where a library is whose computing part was compiled for this very processor (`slos-serve library build`), and when it is
 * taken. A folder's name says for which processor: on another one it is not found, rather than ended by an illegal instruction. */
import { createHash } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { cpus } from "node:os"
import { join } from "node:path"
import { findLibrary, type LibraryChoice, LLAMA_VERSION, PACKAGE_VERSION } from "./files.ts"

/** Written last: without it a build was broken off. */
export const BUILT_FILE = "built.json"

export function builtFolder(cacheDir: string, processor = processorOf()): string {
  const digest = createHash("sha256").update(processor).digest("hex").slice(0, 12)
  return join(cacheDir, "libraries", `llama-${LLAMA_VERSION}-${PACKAGE_VERSION}-${digest}`)
}

export function isBuilt(folder: string): boolean {
  return existsSync(join(folder, BUILT_FILE))
}

/** What `auto` means here: a build for this processor goes before the prebuilt library of npm, and after one for a GPU. */
export function libraryFor(choice: LibraryChoice, cacheDir: string): LibraryChoice {
  if (choice !== "auto" || !couldBuild()) return choice
  const folder = builtFolder(cacheDir)
  return isBuilt(folder) && takesPrebuilt() ? folder : choice
}

/** A build would be faster than what is taken now: worth a line. */
export function couldBeFaster(choice: LibraryChoice, cacheDir: string): boolean {
  return choice === "auto" && couldBuild() && !isBuilt(builtFolder(cacheDir)) && takesPrebuilt()
}

/** Tried on no other system. */
export function couldBuild(): boolean {
  return process.platform === "linux"
}

function takesPrebuilt(): boolean {
  try {
    return findLibrary("auto").folder === findLibrary("cpu").folder
  } catch {
    // That none is installed is said where it is loaded.
    return false
  }
}

/** Its name and what it can do, as the system tells. */
function processorOf(): string {
  const name = `${process.arch} ${cpus()[0]?.model.trim() ?? ""}`
  try {
    const [flags = ""] = /^(flags|Features)\s*:.*$/m.exec(readFileSync("/proc/cpuinfo", "utf8")) ?? []
    return `${name} ${flags}`
  } catch {
    return name
  }
}
