// The people's API. A refusal of the boot service arrives as an ApiError with
// the boot service's own words.

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

export async function request<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
  let answer: Response
  try {
    answer = await fetch(path, {
      method,
      // Proves that the request comes from our own page: a form of another
      // site can't set it.
      headers: { 'X-Rackseed': '1', ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch {
    throw new ApiError(0, 'The boot service does not answer. Is the appliance on, and this computer on its network?')
  }
  const text = await answer.text()
  if (!answer.ok) {
    throw new ApiError(answer.status, reason(text) || `The boot service answered ${answer.status}.`)
  }
  return (text === '' ? undefined : JSON.parse(text)) as T
}

// reason finds the sentence in a problem document (RFC 9457), with what each
// field lacks.
function reason(text: string): string {
  try {
    const problem = JSON.parse(text) as { detail?: string; title?: string; error?: string; errors?: { message?: string; location?: string }[] }
    const fields = (problem.errors ?? []).map((e) => [e.location, e.message].filter(Boolean).join(': '))
    return [problem.detail ?? problem.error ?? problem.title ?? '', ...fields].filter(Boolean).join('; ')
  } catch {
    return text
  }
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
