using System.Buffers.Binary;
using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Where the next page starts: opaque to callers, and good for one account and one query only. It grants nothing (the account is checked on each
/// call), so it is not signed; the check bytes tell a mangled token, or another account's or query's, from a real one.
/// </summary>
internal static class PageToken
{
    private const byte Version = 1;
    private const int CheckBytes = 6;
    private const int Length = 1 + sizeof(long) + CheckBytes;

    /// <param name="query">What the pages are of, in any words that are the same for the same.</param>
    public static string Write(long position, AccountId account, string query)
    {
        Span<byte> token = stackalloc byte[Length];
        token[0] = Version;
        BinaryPrimitives.WriteInt64BigEndian(token[1..], position);
        Check(token[..^CheckBytes], account, query).CopyTo(token[^CheckBytes..]);
        return Base64Url.EncodeToString(token);
    }

    /// <param name="position">Null for the first page: no token, or an empty one.</param>
    public static bool TryRead(string? text, AccountId account, string query, out long? position)
    {
        position = null;
        if (string.IsNullOrEmpty(text)) return true;
        Span<byte> token = stackalloc byte[Length];
        if (text.Length != Base64Url.GetEncodedLength(Length) || !Base64Url.IsValid(text) || !Base64Url.TryDecodeFromChars(text, token, out var written)
            || written != Length) return false;
        if (token[0] != Version || !token[^CheckBytes..].SequenceEqual(Check(token[..^CheckBytes], account, query))) return false;
        position = BinaryPrimitives.ReadInt64BigEndian(token[1..]);
        return position > 0;
    }

    private static ReadOnlySpan<byte> Check(ReadOnlySpan<byte> head, AccountId account, string query) =>
        SHA256.HashData([.. head, .. Encoding.UTF8.GetBytes($"{account.Value}\n{query}")]).AsSpan(0, CheckBytes);
}
