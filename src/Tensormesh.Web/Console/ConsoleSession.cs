using Microsoft.AspNetCore.Components.Authorization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Who looks at the page, and at which account.</summary>
internal sealed class ConsoleSession(AuthenticationStateProvider people, TimeProvider time)
{
    private readonly AuthenticationStateProvider people = people;
    private readonly TimeProvider time = time;

    public Caller? Caller { get; private set; }

    /// <summary>The caller's own, or the one that an administrator looks at.</summary>
    public AccountId Account { get; private set; }

    /// <summary>Of the account's time zone, once a page has read the account.</summary>
    public AccountCalendar Calendar { get; private set; } = AccountCalendar.Utc;

    public bool MayChange => Caller?.May(Permission.ChangeBilling) == true;

    public bool IsAdmin => Caller?.IsAdmin == true;

    public bool IsElsewhere => Caller is { } caller && Account != default && Account != caller.Account;

    /// <summary>A path of the console that stays with the account that is looked at.</summary>
    public string Link(string path) => IsElsewhere ? $"{path}?account={Uri.EscapeDataString(Account.Value)}" : path;

    /// <summary>For the routes that files are fetched from.</summary>
    public string FileLink(string path, string? month = null)
    {
        var query = new List<string>();
        if (month is not null) query.Add($"month={month}");
        if (IsElsewhere) query.Add($"userId={Uri.EscapeDataString(Account.Value)}");
        return query.Count == 0 ? path : $"{path}?{string.Join('&', query)}";
    }

    public void UseZone(string timeZone) => Calendar = AccountCalendar.Of(timeZone);

    /// <summary>Reads who it is anew; asked before everything that is shown or done, since roles and sign-ins end.</summary>
    /// <param name="account">The account that the address names; null: the caller's own.</param>
    public async Task<string?> WhyNotAsync(string? account)
    {
        var user = (await people.GetAuthenticationStateAsync()).User;
        Caller = SignedInUntil.IsOver(user, time.GetUtcNow()) ? null : Caller.From(user);
        if (Caller is not { } caller) return "Your sign-in has ended. Reload the page to sign in again.";
        Account = caller.Account;
        if (!caller.MayActFor(account, out var found, out _)) return $"You act for account '{caller.Account}' and may not see '{account}'.";
        Account = found;
        return null;
    }

    /// <summary>Before anything is changed.</summary>
    public async Task<string?> WhyNotAsync(Permission permission)
        => await WhyNotAsync(IsElsewhere ? Account.Value : null) is { } refusal ? refusal
        : Caller!.May(permission) ? null
        : permission == Permission.Administer ? "This is for administrators only."
        : "You are a member of the account: members read. Ask an owner of the account to do this.";
}
