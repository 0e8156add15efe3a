using Microsoft.AspNetCore.Components;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Web.Layout;

namespace Tensormesh.Web;

/// <summary>A page about one account: it loads, it is there, or it says why it is not.</summary>
public abstract class ConsolePage : ComponentBase, IDisposable
{
    private readonly CancellationTokenSource leaving = new();
    private string? loadedFor;

    /// <summary>An administrator may look at another account.</summary>
    [SupplyParameterFromQuery(Name = "account")]
    public string? AccountName { get; set; }

    [CascadingParameter]
    public MainLayout? Layout { get; set; }

    [Inject]
    internal ConsoleSession Session { get; set; } = null!;

    [Inject]
    internal TimeProvider Time { get; set; } = null!;

    [Inject]
    internal ILogger<ConsolePage> Log { get; set; } = null!;

    /// <summary>What the page asks of whoever looks at it.</summary>
    private protected virtual Permission Needed => Permission.ReadBilling;

    protected bool IsLoading { get; private set; } = true;

    /// <summary>For the person; null: the page is there.</summary>
    protected string? FailedBecause { get; private set; }

    /// <summary>Ends when the person leaves the page.</summary>
    protected CancellationToken Leaving => leaving.Token;

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
        if (!disposing || leaving.IsCancellationRequested) return;
        leaving.Cancel();
        leaving.Dispose();
    }

    protected override async Task OnParametersSetAsync()
    {
        var wanted = AccountName ?? "";
        if (loadedFor == wanted) return;
        loadedFor = wanted;
        IsLoading = true;
        await ReloadAsync();
    }

    /// <summary>Reads everything anew. What was there stays there until it is done.</summary>
    protected async Task ReloadAsync()
    {
        try
        {
            if (await IsAllowedAsync() && !await LoadAsync(Leaving))
            {
                FailedBecause = $"The ledger knows no account '{Session.Account}' yet. Ask your platform team to create its BillingAccount, and try again in a few seconds.";
            }
        }
        catch (OperationCanceledException) when (leaving.IsCancellationRequested)
        {
            return;
        }
        catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault) || fault is NpgsqlException)
        {
            FailedBecause = "The ledger cannot be reached at this moment. Nothing is lost: try again in a few seconds.";
        }

        IsLoading = false;
        Layout?.Refresh();
        if (!leaving.IsCancellationRequested) StateHasChanged();
    }

    /// <summary>Asked before more is shown, since roles and sign-ins end while a page is open. Where not, the page says why.</summary>
    protected async Task<bool> IsAllowedAsync()
    {
        FailedBecause = await Session.WhyNotAsync(string.IsNullOrEmpty(AccountName) ? null : AccountName)
            ?? (Session.Caller!.May(Needed) ? null : "This page is for administrators only.");
        return FailedBecause is null;
    }

    /// <returns>False when there is no such account.</returns>
    protected abstract Task<bool> LoadAsync(CancellationToken cancellation);

    /// <summary>What is changed by a person: the refusals of the ledger and of the payment company's connection, in words.</summary>
    internal static string? InWords(Exception fault) => fault switch
    {
        PaymentProviderException { IsTransient: true } =>
            "The payment company gave no answer, so that it is not known whether this was done. Try again: nothing is done twice.",
        _ when LedgerAvailability.IsUnavailable(fault) => "The ledger cannot be reached at this moment. Try again in a few seconds: nothing is done twice.",
        _ => null,
    };
}
