import { applyDecorators } from '@nestjs/common';
import {
  ApiExtraModels,
  ApiProperty,
  ApiPropertyOptional,
  ApiResponse,
  getSchemaPath,
} from '@nestjs/swagger';
import { ApiError, ERROR_CODES, type ApiErrorDetails, type ErrorCode } from '../errors/api-error';
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

  @ApiPropertyOptional({
    type: 'object',
    additionalProperties: true,
    description:
      'With a 428: the challenge to solve, in ALTCHA’s protocol (version 2), as their widget and library take it.',
    properties: { parameters: { type: 'object', additionalProperties: true }, signature: { type: 'string' } },
    required: ['parameters', 'signature'],
  })
  challenge?: object;
}

/** The headers with the time of the next try, in the OpenAPI document. */
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
  challenge_required: {
    proofOfWork: {
      parameters: {
        algorithm: 'PBKDF2/SHA-256',
        cost: 1000,
        data: { for: 'q1pY7nRtAxB2c4D6e8F0g1', key: 'q1pY7n' },
        expiresAt: 1795255812,
        keyLength: 32,
        keyPrefix: '9f86d081884c7d659a2feaa0c55ad015',
        keySignature: 'a3bf4f1b2b0b822cd15d6c15b0f00a08a3bf4f1b2b0b822cd15d6c15b0f00a08',
        nonce: '5e884898da28047151d0e56f8dc62927',
        salt: '6b86b273ff34fce19d6b804eff5a3f57',
      },
      signature: 'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9',
    },
  },
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
