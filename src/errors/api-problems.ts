import { applyDecorators } from '@nestjs/common';
import {
  ApiExtraModels,
  ApiProperty,
  ApiPropertyOptional,
  ApiResponse,
  getSchemaPath,
} from '@nestjs/swagger';
import { ApiError, ERROR_CODES, type ApiErrorDetails, type ErrorCode } from './api-error';
import { problemBody } from './problem';

class FieldProblem {
  @ApiProperty({ example: 'phoneNumber' })
  field!: string;

  @ApiProperty({ example: 'phoneNumber must be an Indian mobile number in E.164 form: +91 and ten digits' })
  message!: string;
}

/** The error body in the OpenAPI document (RFC 9457). */
class Problem {
  @ApiProperty({ format: 'uri-reference', example: 'urn:otp-login:otp_incorrect' })
  type!: string;

  @ApiProperty({ example: 'The code is wrong' })
  title!: string;

  @ApiProperty({ type: 'integer', example: 400 })
  status!: number;

  @ApiProperty({
    enum: Object.keys(ERROR_CODES),
    description: 'A closed set: decide by it.',
    example: 'otp_incorrect',
  })
  code!: ErrorCode;

  @ApiProperty({ description: 'One sentence for a developer.', example: 'The code is wrong' })
  detail!: string;

  @ApiPropertyOptional({ type: 'integer', example: 2 })
  attemptsLeft?: number;

  @ApiPropertyOptional({ type: 'integer', description: 'As in the Retry-After header.', example: 30 })
  retryAfterSeconds?: number;

  @ApiPropertyOptional({ type: [FieldProblem] })
  errors?: FieldProblem[];
}

/** What says when to come back, in the OpenAPI document. */
export const RETRY_AFTER = {
  'Retry-After': {
    description: 'Seconds until it is worth trying again.',
    schema: { type: 'integer' as const, minimum: 1 },
  },
};

const DETAILS: Partial<Record<ErrorCode, ApiErrorDetails>> = {
  validation_failed: {
    errors: [
      {
        field: 'phoneNumber',
        message: 'phoneNumber must be an Indian mobile number in E.164 form: +91 and ten digits',
      },
    ],
  },
  otp_incorrect: { attemptsLeft: 2 },
  phone_locked: { retryAfterSeconds: 3_600 },
  rate_limited: { retryAfterSeconds: 30 },
};

/** The body as a caller gets it, written by the function that writes the real ones. */
function example(code: ErrorCode): { summary: string; value: unknown } {
  const error = new ApiError(code, DETAILS[code]);
  return { summary: code, value: problemBody(error) };
}

const saysWhenToComeBack = (code: ErrorCode): boolean => new ApiError(code).retryAfterSeconds !== undefined;

/** Documents the errors that an operation answers, grouped by status. */
export function ApiProblems(...codes: ErrorCode[]): MethodDecorator {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of codes) {
    const { status } = ERROR_CODES[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const responses = [...byStatus].map(([status, group]) =>
    ApiResponse({
      status,
      description: group.map((code) => `\`${code}\`: ${ERROR_CODES[code].title}.`).join(' '),
      content: {
        'application/problem+json': {
          schema: { $ref: getSchemaPath(Problem) },
          examples: Object.fromEntries(group.map((code) => [code, example(code)])),
        },
      },
      ...(group.some(saysWhenToComeBack) ? { headers: RETRY_AFTER } : {}),
    }),
  );
  return applyDecorators(ApiExtraModels(Problem), ...responses);
}
