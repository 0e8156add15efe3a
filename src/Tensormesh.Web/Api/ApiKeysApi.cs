using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Keys for machines, with the public API's paths. Deleting one is ours, which names no path for it.</summary>
internal static class ApiKeysApi
{
    private const string Path = "/v1/users/api-keys";

    public static void MapApiKeysApi(this IEndpointRouteBuilder routes)
    {
        var keys = routes.MapGroup(Path).Needing(Permission.ManageApiKeys).WithTags("api keys").Refusing(404);
        keys.MapPost("", CreateAsync).Produces<ApiKeyAnswer>().TakingIdempotencyKey();
        keys.MapGet("", ListAsync).Produces<ApiKeysAnswer>();
        keys.MapDelete("/{apiKeyId}", DeleteAsync).Produces<Done>().RememberingAnswers();
    }

    private static async Task<IResult> CreateAsync(
        ApiKeyCreateRequest body, HttpContext context, Caller caller, AccountLookup accounts, ApiKeys keys, TimeProvider time, WebMetrics metrics,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        if (!IdempotencyKey.TryRead(context, caller, "api-key", out var key, out refusal)) return refusal;
        var name = body.Name ?? "";
        if (name.Length > ApiKeys.LongestName || name.Any(char.IsControl))
        {
            return Problem.Invalid("name", $"'name' is one line of at most {ApiKeys.LongestName} characters.");
        }

        if (!TryReadScopes(body.Scopes, caller, out var scopes, out refusal)) return refusal;
        if (!Wire.TryReadInstant(body.ExpiresAt, "expiresAt", out var expiresAt, out refusal)) return refusal;
        if (expiresAt <= time.GetUtcNow()) return Problem.Invalid("expiresAt", "'expiresAt' is in the past: write a later instant, or leave it out.");
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        switch (await keys.CreateAsync(new(account, name, scopes, expiresAt, key.Value), caller.AsActor(), cancellation))
        {
            case ApiKeyResult.Created created:
                return TypedResults.Ok(new ApiKeyAnswer(ApiKeyJson.From(created.Key) with { Key = created.Secret }));
            case ApiKeyResult.AlreadyCreated before:
                return TypedResults.Ok(new ApiKeyAnswer(ApiKeyJson.From(before.Key)));
            case ApiKeyResult.KeyReusedWithOtherContent:
                metrics.KeyConflicts.Inc();
                return Problem.KeyReused("This Idempotency-Key was used before for another API key.");
            case ApiKeyResult.TooMany:
                return Problem.TooManyApiKeys(ApiKeys.MostLive);
            case ApiKeyResult.AccountMissing:
                return Problem.AccountUnknown(account);
            case var other:
                throw new InvalidOperationException($"no answer is known for {other}");
        }
    }

    private static async Task<IResult> ListAsync(
        string? userId, string? includeDeleted, Caller caller, AccountLookup accounts, ApiKeys keys, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        var all = false;
        if (includeDeleted is { Length: > 0 } && !bool.TryParse(includeDeleted, out all))
        {
            return Problem.Invalid("includeDeleted", "includeDeleted is true or false.");
        }

        return await accounts.FindAsync(account, cancellation) is null
            ? Problem.AccountUnknown(account)
            : TypedResults.Ok(new ApiKeysAnswer([.. (await keys.ListAsync(account, all, cancellation)).Select(ApiKeyJson.From)]));
    }

    private static async Task<IResult> DeleteAsync(
        string apiKeyId, string? userId, Caller caller, AccountLookup accounts, ApiKeys keys, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return !apiKeyId.Any(char.IsControl) && await keys.DeleteAsync(account, apiKeyId, caller.AsActor(), cancellation)
            ? Done.Result
            : Problem.ApiKeyUnknown(apiKeyId);
    }

    /// <summary>Left out: to read its account's billing.</summary>
    private static bool TryReadScopes(
        IReadOnlyList<string?>? names, Caller caller, out IReadOnlyList<ApiKeyScope> scopes, [NotNullWhen(false)] out Problem? refusal)
    {
        (scopes, refusal) = ([ApiKeyScope.BillingRead], null);
        if (names is null or []) return true;
        var found = names.Select(ApiKeyScopes.Find).ToArray();
        if (found.Any(scope => scope is null))
        {
            refusal = Problem.Invalid("scopes", $"'scopes' is a list of {string.Join(", ", ApiKeyScopes.All)}; left out, it is {ApiKeyScope.BillingRead.ToName()}.");
        }
        else if (found.Contains(ApiKeyScope.UsageWrite) && !caller.IsAdmin)
        {
            refusal = Problem.Invalid("scopes", $"{ApiKeyScope.UsageWrite.ToName()} is for the platform's own servers: an administrator creates such a key.");
        }

        scopes = [.. found.OfType<ApiKeyScope>()];
        return refusal is null;
    }
}

/// <param name="ExpiresAt">Left out: never.</param>
internal sealed record ApiKeyCreateRequest(string? UserId, string? Name, IReadOnlyList<string?>? Scopes, string? ExpiresAt);

internal sealed record ApiKeyAnswer(ApiKeyJson ApiKey);

internal sealed record ApiKeysAnswer(IReadOnlyList<ApiKeyJson> ApiKeys);

internal sealed record ApiKeyJson(string Id, string Name, IReadOnlyList<string> Scopes, DateTime CreatedAt)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? ExpiresAt { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? DeletedAt { get; init; }

    /// <summary>Ours: the key itself, in the answer that made it and never again.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Key { get; init; }

    public static ApiKeyJson From(ApiKey key) => new(key.Id, key.Name, [.. key.Scopes.Select(scope => scope.ToName())], key.CreatedAt.UtcDateTime)
    {
        ExpiresAt = key.ExpiresAt?.UtcDateTime,
        DeletedAt = key.DeletedAt?.UtcDateTime,
    };
}
