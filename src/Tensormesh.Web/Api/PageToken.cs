using System.Buffers.Binary;
using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Where the next page starts: opaque to callers, and good for one account only. It grants nothing (the account is checked on each
/// call), so it is not signed; the check bytes tell a mangled token, or another account's, from a real one.
/// </summary>
internal static class PageToken
{
    private const byte Version = 1;
    private const int CheckBytes = 6;
    private const int Length = 1 + sizeof(long) + CheckBytes;

    public static string Write(long position, AccountId account)
    {
        Span<byte> token = stackalloc byte[Length];
        token[0] = Version;
        BinaryPrimitives.WriteInt64BigEndian(token[1..], position);
        Check(token[..^CheckBytes], account).CopyTo(token[^CheckBytes..]);
        return Base64Url.EncodeToString(token);
    }

    /// <param name="position">Null for the first page: no token, or an empty one.</param>
    public static bool TryRead(string? text, AccountId account, out long? position)
    {
        position = null;
        if (string.IsNullOrEmpty(text)) return true;
        Span<byte> token = stackalloc byte[Length];
        if (text.Length != Base64Url.GetEncodedLength(Length) || !Base64Url.TryDecodeFromChars(text, token, out var written)
            || written != Length) return false;
        if (token[0] != Version || !token[^CheckBytes..].SequenceEqual(Check(token[..^CheckBytes], account))) return false;
        position = BinaryPrimitives.ReadInt64BigEndian(token[1..]);
        return position > 0;
    }

    private static ReadOnlySpan<byte> Check(ReadOnlySpan<byte> head, AccountId account) =>
        SHA256.HashData([.. head, .. Encoding.UTF8.GetBytes(account.Value)]).AsSpan(0, CheckBytes);
}
